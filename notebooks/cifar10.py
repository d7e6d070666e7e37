# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # CIFAR-10 from start to end
#
# Data, learning rate, training, graphs, errors, Grad-CAM, export: the article's path, a few lines a step.
# The network is `sprint94`, about seven minutes on two CPU cores (here it took longer, since another training ran beside it);
# put `davidnet` in its place for the article's own.
# Everything lands in a run folder, and every picture is drawn from there.

# %%
import os
from pathlib import Path

from IPython.display import Image

import sprintnet

recipe = os.environ.get("RECIPE", "sprint94")
overrides = os.environ.get("OVERRIDES", "data.val=0.1").split()
config = sprintnet.load_config(recipe, overrides)

# %% [markdown]
# ## Data
# CIFAR-10 is downloaded on first use and checked byte for byte. A tenth of the training images is held out: the temperature
# of the calibration is fitted there. The test set is read at the end.

# %%
splits = sprintnet.load_splits(config)
for name, images in splits.items():
    print(f"{name:5} {len(images):6,} images {images.image_shape}, classes: {', '.join(images.classes)}")

# %% [markdown]
# ## Network

# %%
shape, classes = splits["train"].image_shape, len(splits["train"].classes)
print(sprintnet.layer_table(sprintnet.build_model(config.model, classes, shape), shape))

# %% [markdown]
# ## Learning rate
# A sweep of rising rates, a batch each: the loss falls, levels and explodes. The recipe's own peak is printed beside what
# the sweep suggests; `optim.max_lr=auto` would train at the steepest slope.

# %%
finder = sprintnet.RunFolder(f"runs/lr/{recipe}-notebook")
for found in sprintnet.lr_find(config, finder):
    print({name: f"{rate:.3g}" for name, rate in found["suggestions"].items()}, f"recipe: {config.peak_lr:g}")
Image(sprintnet.save_figure(finder, "lr_finder"))

# %% [markdown]
# ## Training
# The table is the article's. Interrupted, it goes on with `resume=True`.

# %%
run = sprintnet.RunFolder(f"runs/train/{recipe}-notebook")
metrics = sprintnet.train(config, run, resume=True)
split = "test" if "test" in metrics else "val"  # of your own pictures the test set stays unseen
print(f"{split} accuracy {metrics[split]['accuracy']:.2%} after {metrics['train_seconds']:.0f} s of training")

# %%
Image(sprintnet.save_figure(run, "results"))

# %% [markdown]
# ## Augmented images
# What the network saw instead of the originals.

# %%
Image(sprintnet.save_figure(run, "train_batch0"))

# %% [markdown]
# ## Errors

# %%
Image(sprintnet.save_figure(run, "confusion_matrix"))

# %%
Image(sprintnet.save_figure(run, "errors"))

# %% [markdown]
# ## Calibration
# Label smoothing leaves the network less sure than it is right; the temperature, fitted on the held-out images, mends that.

# %%
Image(sprintnet.save_figure(run, "reliability"))

# %% [markdown]
# ## Grad-CAM
# Where the network looked in its surest wrong answers, and how faithful those maps are beside random ones.

# %%
trained, _ = sprintnet.load_run(run.path)
for name, figures in sprintnet.explain_wrong(run, trained, 8).faithfulness.items():
    print(f"{name:10} deletion {figures['deletion']:.1%}, insertion {figures['insertion']:.1%}")
Image(sprintnet.save_figure(run, "grad_cam"))

# %% [markdown]
# ## One page of it all
# It needs nothing but a browser.

# %%
page = sprintnet.write_report(run)
print(page, f"{Path(page).stat().st_size / 1e6:.1f} MB")

# %% [markdown]
# ## Export
# One ONNX file takes raw pixels, of any size, and answers without PyTorch. Before it is kept, every test image goes through it
# and through the network.

# %%
for name, row in sprintnet.export(run.path)["files"].items():
    print(f"{name}: {row['bytes'] / 1e6:.1f} MB, {row['accuracy']:.2%} of {row['images']:,} {split} images right")
    print(f"same class as the network: {row['agreement']:.2%}, probabilities off by {row['largest_difference']:.1e} at most")

predictor = sprintnet.Predictor(run.export / "model.onnx")
images = splits[split].images[:3]
for best in predictor(images).top(3):
    print(", ".join(f"{label} {probability:.1%}" for label, probability in best))
