# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # CIFAR-10: from images to a model that you can ship
#
# Look at the images, train for a minute, find out why the model errs, export it, then do the same with your own images.
# Everything runs on a CPU. With `recipe = "sprint94"` training takes 4 to 25 minutes, by processor, and reaches about 93%.

# %% tags=["parameters"]
recipe = "smoke"
dataset = "cifar10"
own_images = "../tests/sample"

# %% [markdown]
# ## The images
# CIFAR-10 is downloaded on first use. `val=0.1` holds a tenth of the training images out for validation.

# %%
import sprintnet as sn

data = sn.load_data(dataset, val=0.1)
data

# %%
data.show(20)

# %% [markdown]
# **Question 1.** 32 x 32 pixels are few. Which two classes would you confuse? Write them down; the model answers below.
#
# ## Training
# `train` takes a recipe and returns a model. Keyword arguments change the recipe's settings: `epochs=4`, `optim__max_lr=0.1`.

# %%
model = sn.train(recipe, data)

# %%
model

# %% [markdown]
# Training images are augmented (cropped, flipped, partly hidden), so training looks worse than validation at first.

# %%
model.plot("results")

# %% [markdown]
# ## Errors
# Rows are true classes, columns are predictions. The largest numbers off the diagonal answer question 1.

# %%
model.plot("confusion_matrix")

# %% [markdown]
# The most confident errors come first. Some images are hard for people, too.

# %%
model.plot("errors")

# %% [markdown]
# ## Where does it look?
# Grad-CAM shows which pixels were decisive for each prediction: of the last layer, and as a mean over all layers.

# %%
model.explain(data.val, n=8)

# %% [markdown]
# **Question 2.** Find an image where the model looks at the background. Would the prediction survive another background?
#
# ## Is 80% confident right in 80% of cases?
# On the diagonal, confidence equals accuracy. The temperature, fitted on the validation images, moves the model towards it.

# %%
model.plot("reliability")

# %% [markdown]
# ## The learning rate
# The finder raises the learning rate batch by batch. The loss stays level, falls and, at some point, explodes.
# A good peak learning rate lies where the loss falls, well before it explodes.

# %%
found = sn.lr_find(recipe, data)
found

# %%
found.plot()

# %% [markdown]
# **Question 3.** Is the recipe's learning rate a good one? Train with yours: `sn.train(recipe, data, optim__max_lr=...)`.
# One run proves little; `sn.study` trains several seeds, and `sn.compare` tests the difference.
#
# ## Shipping
# `export` writes one ONNX file that takes raw pixels of any size. It is kept only if its predictions match the model's.
# `sn.load` opens it with ONNX Runtime; PyTorch is not needed any more.

# %%
predictor = sn.load(model.export())
for best in predictor(data.val.images[:3]).top(3):
    print(", ".join(f"{label} {probability:.0%}" for label, probability in best))

# %% [markdown]
# ## Your own images
# A folder with a subfolder for each class is enough; put its path above. Here it is 300 images of CIFAR-10.
# `check` looks for problems before you train.

# %%
sn.check(own_images)

# %%
own = sn.load_data(own_images)
own.show()

# %% [markdown]
# So few images are soon learned by heart, so start from the model above: `init_from` copies its weights, and a low learning
# rate changes them little.

# %%
own_model = sn.train(recipe, own, name="mine", init_from=model.run, epochs=10, optim__max_lr=0.01)

# %% [markdown]
# The test images were not used so far. Evaluate them once, at the end; each evaluation is logged in `test_access.csv`.

# %%
metrics = own_model.evaluate(own.test)
low, high = metrics["accuracy_interval"]
print(f"{metrics['accuracy']:.1%} of {metrics['images']} test images (95% CI {low:.1%} to {high:.1%})")

# %%
own_model.predict(own.test.files[:5])

# %% [markdown]
# The report has all of it on one page that needs only a browser:

# %%
own_model.report()
