# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own images, a few dozen of them
#
# A network that was pretrained on ImageNet needs about ten images of each class. Put the path of your folder below: a
# subfolder for each class. Here it is 300 small images of CIFAR-10 in ten classes.

# %% tags=["parameters"]
images = "../tests/sample"
settings = {}

# %% [markdown]
# ## Look before you train
# `check` looks for unreadable files, near duplicates, equal images under two labels and rare classes.

# %%
import sprintnet as sn

sn.check(images)

# %%
data = sn.load_data(images, size=224, resize="crop", channels="rgb")
data.show(20)

# %% [markdown]
# ## Train
# Each image becomes 1,280 numbers once; then the last layer is fitted to them. No epochs with so few images.

# %%
model = sn.train("photos", data, **settings)
model

# %% [markdown]
# The penalty of the last layer was chosen by cross-validation over the training images:

# %%
model.plot("head_fit")

# %% [markdown]
# ## Can you believe it?
# Twenty validation images measure an accuracy badly: look at the interval, not at the number.

# %%
low, high = model.metrics["val"]["accuracy_interval"]
print(f"{model.metrics['val']['accuracy']:.0%} of {model.metrics['val']['images']} images: {low:.0%} to {high:.0%}")

# %% [markdown]
# What does it confuse, and where did it look?

# %%
model.plot("confusion_matrix")

# %%
model.explain(data.val, n=6)

# %% [markdown]
# **Question.** Which of your classes would profit most from ten more images?
#
# ## The test images, once
# They were not used so far. Each evaluation is logged.

# %%
metrics = model.evaluate(data.test)
low, high = metrics["accuracy_interval"]
print(f"{metrics['accuracy']:.0%} of {metrics['images']} test images: {low:.0%} to {high:.0%}")

# %% [markdown]
# ## One class is not always enough
# Sets contain the true class for 80 % of images like these: one class where the network is sure, several where
# it is not.

# %%
model.predict_sets(data.test.images[:5], 0.8)

# %% [markdown]
# ## Ship it
# The exported file takes pixels of any size and needs no PyTorch; it is compared with the network on every
# validation image first.

# %%
predictor = sn.load(model.export())
predictor(data.test.images[:3]).top(2)
