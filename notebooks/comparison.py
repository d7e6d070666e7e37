# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Is it better, or was it luck?
#
# You change a setting and the accuracy rises by half a point. Would it have risen with another seed? This notebook
# compares two recipes as a study: several seeds of each, on the same held-out images, with a test of the difference.

# %% tags=["parameters"]
recipe = "smoke"
dataset = "cifar10"
seeds = 3
change = {"label_smoothing": 0.0}

# %% [markdown]
# ## Two studies
# `val=0.1` holds a tenth of the training images out, the same for all seeds. They decide; the test images are
# not used to choose.

# %%
import sprintnet as sn

data = sn.load_data(dataset, val=0.1)
as_it_is = sn.study(recipe, data, seeds=seeds, name="as-it-is")
as_it_is

# %%
changed = sn.study(recipe, data, seeds=seeds, name="changed", **change)
changed

# %% [markdown]
# ## The comparison
# Both studies have the same seeds, so each pair of runs saw its images in the same order: the test is of the
# differences by seed.

# %%
sn.compare(as_it_is, changed, split="val")

# %% [markdown]
# **Question.** How many seeds would you need to see a difference of the size that was found? The last column says it. For
# half the difference you need about four times as many.
#
# ## What the seeds share
# A study's runs are ordinary runs: load one, and look at it.

# %%
model = sn.load("runs/study/as-it-is/seed-0")
model.plot("results")

# %% [markdown]
# Whoever compares twenty changes and keeps the best has chosen luck. Test the winner once, with fresh seeds:
# `sprintnet tune` does so.
