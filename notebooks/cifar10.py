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
# Everything runs on a CPU. With `recipe = "sprint94"` training takes a few minutes and reaches 94%.

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
# The finder raises the learning rate batch by batch: the loss falls, then explodes. A good peak lies where it falls fastest.

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
# A folder with a subfolder for each class is enough; put its path above. `check` looks for problems before you train.

# %%
sn.check(own_images)

# %%
own = sn.load_data(own_images)
own.show()

# %% [markdown]
# A few images are soon learned by heart, so start from the model above: `init_from` copies its weights.

# %%
own_model = sn.train(recipe, own, init_from=str(model.run), name="mine")

# %% [markdown]
# The test images were not touched so far. Look at them once, at the end: every look is logged in `test_access.csv`.

# %%
metrics = own_model.evaluate(own.test)
low, high = metrics["accuracy_interval"]
print(f"{metrics['accuracy']:.1%} of {metrics['images']} test images (95% CI {low:.1%} to {high:.1%})")

# %%
own_model.predict(own.test.files[:5])

# %% [markdown]
# Everything above on one page, to send to somebody:

# %%
own_model.report()
