# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # DavidNet: the article, step by step
#
# An article trained a small residual network, DavidNet, to 94.12% on CIFAR-10 in 24 epochs: with mixed precision, label
# smoothing and a one-cycle learning rate, after a search for the learning rate. Here is all of it, in the article's order. The
# training below took 88 minutes on one core of an AMD EPYC with AVX512-BF16, beside other work; where its run exists, the
# results are shown at once.

# %% tags=["parameters"]
recipe = "davidnet"
dataset = "cifar10"
quantize = "fp16"

# %% [markdown]
# ## The network
# Three times a 3x3 convolution, pooling to half the size, batch norm and ReLU; after the first and the last, a residual branch
# of two more convolutions, `x + f(x)`. 6.6 million parameters, as in the article's table.

# %%
# %run -m sprintnet summary {recipe}

# %% [markdown]
# ## The images
# 50,000 training images of 32 x 32 pixels in ten classes. A thousand of them are held out here: the article chose and measured
# on the test images; we watch the training on held-out images, calibrate on them, and measure on the test images once.

# %%
import sprintnet as sn

data = sn.load_data(dataset)
data.show(20)

# %% [markdown]
# ## The learning rate
# Too low a learning rate takes forever; with too high a one the loss rises. The finder raises the learning rate at every batch
# by the same factor, $r_i = r_0\,q^i$, so that its points are evenly spaced on a logarithmic axis, and stops when the loss
# explodes. The curve is a moving average of the losses, $a_i = \beta\,a_{i-1} + (1 - \beta)\,l_i$, divided by
# $1 - \beta^{i+1}$, the sum of its weights.
# The best learning rate is not at the minimum, where the loss is about to explode, but well before it.
# [More](../docs/explanations/learning_rate_finder.md)

# %%
found = sn.lr_find(recipe, data)
found.plot()

# %% [markdown]
# ## Training
# - **One cycle.** The learning rate rises from 0.045 to 0.45 in seven epochs, then falls to nearly zero: a high one explores,
#   a low one settles. [More](../docs/explanations/one_cycle.md)
# - **Label smoothing.** The target is $(1 - \alpha)\,y + \alpha / K$ of the one-hot label $y$ and $K$ classes: the network is
#   never asked for certainty. The gradient of the loss by the logits is the softmax minus that target. $\alpha$ = 0.2.
#   [More](../docs/explanations/label_smoothing.md)
# - **Mixed precision.** Convolutions compute in 16 bits, weights are kept in 32. In fp16 a scaler multiplies the loss, so
#   that small gradients do not become zero; bf16 has fp32's range and needs none.
#   [More](../docs/explanations/mixed_precision.md)
# - **Augmentation.** Random crops, flips, small rotations, shifts and scalings, and a square that is cut out.

# %%
model = sn.train(recipe, data, name="davidnet", resume=True)

# %%
model.plot("train_batch0")

# %% [markdown]
# The article's table of epochs: it begins with the settings.

# %%
print((model.run / "log.txt").read_text())

# %%
model.plot("schedule")

# %% [markdown]
# ## Results
# Training images are augmented and their targets smoothed, so the training loss stays above the validation loss at first.

# %%
model.plot("results")

# %%
result = model.metrics.get("test", model.metrics["val"])
low, high = result["accuracy_interval"]
print(f"{result['accuracy']:.2%} of {result['images']:,} images (95% interval {low:.2%} to {high:.2%}); the article: 94.12%")

# %%
model.plot("confusion_matrix")

# %% [markdown]
# Label smoothing makes the network underconfident. A temperature, fitted on the held-out images, corrects this and changes no
# prediction. [More](../docs/explanations/calibration.md)

# %%
model.plot("reliability")

# %% [markdown]
# ## Incorrect predictions
# The most confident ones first.

# %%
model.plot("errors")

# %% [markdown]
# ## Grad-CAM
# Which pixels were decisive? The gradients of a class's score $y^c$ by the activation maps $A^k$ of a layer, averaged over all
# positions, weight the maps; a ReLU keeps what speaks for the class:
#
# $$\alpha_k^c = \frac{1}{Z} \sum_{i,j} \frac{\partial y^c}{\partial A^k_{ij}}, \qquad
# L^c = \mathrm{ReLU}\Big(\sum_k \alpha_k^c A^k\Big).$$
#
# [More](../docs/explanations/grad_cam.md)

# %%
model.explain(data.test or data.val, n=8)

# %% [markdown]
# ## The weights, as one ONNX file
# The file resizes and normalises by itself and predicts calibrated probabilities. It is kept only where it predicts as the
# network does. The [weights](../weights/README.md) of this network are in the repository.

# %%
predictor = sn.load(model.export(quantize=quantize))
for best in predictor(data.val.images[:3]).top(3):
    print(", ".join(f"{label} {probability:.0%}" for label, probability in best))

# %% [markdown]
# ## References
# - D. Page, How to train your ResNet: https://github.com/davidcpage/cifar10-fast
# - L. N. Smith and N. Topin 2018, super-convergence and one cycle: https://arxiv.org/abs/1708.07120
# - S. Gugger 2018, How do you find a good learning rate:
#   https://sgugger.github.io/how-do-you-find-a-good-learning-rate.html
# - C. Szegedy et al. 2016, label smoothing: https://arxiv.org/abs/1512.00567
# - P. Micikevicius et al. 2018, mixed precision: https://arxiv.org/abs/1710.03740
# - R. R. Selvaraju et al. 2017, Grad-CAM: https://arxiv.org/abs/1610.02391
# - C. Guo et al. 2017, calibration: https://arxiv.org/abs/1706.04599
