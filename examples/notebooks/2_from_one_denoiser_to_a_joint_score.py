# %% [markdown]
# # Synchronised diffusion: from one denoiser to a joint score
#
# A class of 90 minutes, after "Gaussian factor graphs and messages". Afterwards you can
#
# * say what a denoiser is, and turn its answer into a score,
# * sample with DDIM in seven lines,
# * join two denoisers that know nothing of each other into the score of a joint distribution,
# * say what happens when they are averaged instead,
# * learn the correlation from data.
#
# Cells marked **Exercise** have a line to fill in; the cell after each checks your answer.
#
# | | minutes |
# |---|---|
# | 1 One denoiser | 15 |
# | 2 Sampling | 15 |
# | 3 Two trajectories | 10 |
# | 4 The joint score | 20 |
# | 5 Averaging | 10 |
# | 6 Beyond Gaussians | 15 |
# | 7 Learn it | 5 |
# %%
import matplotlib.pyplot as plt
import torch
from diffusers import DDIMScheduler

import pgm_sync as ps

torch.set_default_dtype(torch.float64)


def same(mine, true, rtol=1e-6):
    """Check an answer."""
    torch.testing.assert_close(torch.as_tensor(mine), torch.as_tensor(true), rtol=rtol, atol=1e-8)
    print("correct")


# %% [markdown]
# ## 1 One denoiser
#
# Diffusion mixes a clean content with noise, $x_t = \alpha x_0 + \sigma \varepsilon$ with $\alpha^2 + \sigma^2 = 1$. A *denoiser*
# answers one question: what content do you expect, given $x_t$? We call its answer $m = E[x_0 \mid x_t]$.
#
# Let contents be normal with mean $\mu$ and standard deviation $s$. Then the answer is known: it is a combination of two pieces of
# evidence about $x_0$, the prior (mean $\mu$, precision $1/s^2$) and the observation (mean $x_t/\alpha$, precision
# $\alpha^2/\sigma^2$, called the *snr*).
#
# **Exercise 1.** Write this denoiser.
# %%
def denoise(x_t, alpha, sigma, mu=0.0, s=1.0):
    """E[x_0 | x_t] of contents N(mu, s^2)."""
    # <solution>
    snr = alpha**2 / sigma**2
    return (mu / s**2 + snr * x_t / alpha) / (1 / s**2 + snr)
    # </solution>


# %%
level = ps.NoiseLevel(alpha=0.8, sigma=0.6)
x_t = torch.linspace(-2, 2, 5)
theirs = ps.GaussianDenoiser(torch.tensor([0.5]), torch.tensor([[4.0]])).denoise(x_t[:, None], level)[:, 0]
same(denoise(x_t, 0.8, 0.6, mu=0.5, s=2.0), theirs)


# %% [markdown]
# What makes it useful is *Tweedie's formula*: the denoiser knows the slope of the noisy density,
#
# $$\nabla \log p(x_t) = \frac{\alpha\, m(x_t) - x_t}{\sigma^2} .$$
#
# **Exercise 2.** Check it: $x_t$ is normal, with mean $\alpha\mu$ and variance $\alpha^2 s^2 + \sigma^2$. Write the score of that
# density, and compare.
# %%
def score_of_noisy(x_t, alpha, sigma, mu, s):
    """d log p(x_t) / d x_t of contents N(mu, s^2) in noise."""
    # <solution>
    return -(x_t - alpha * mu) / (alpha**2 * s**2 + sigma**2)
    # </solution>


# %%
tweedie = (0.8 * denoise(x_t, 0.8, 0.6, 0.5, 2.0) - x_t) / 0.6**2
same(score_of_noisy(x_t, 0.8, 0.6, 0.5, 2.0), tweedie)

# %% [markdown]
# ## 2 Sampling
#
# DDIM walks from noise to content. At every level it asks the denoiser, computes which noise would explain $x_t$,
# $\hat\varepsilon = (x_t - \alpha m)/\sigma$, and mixes content and noise again for the next, less noisy level:
# $x_{t'} = \alpha' m + \sigma' \hat\varepsilon$.
#
# **Exercise 3.** Write one step.
# %%
alpha_bar = torch.cat([(1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)[::10].flip(0), torch.ones(1)])


def ddim(answer, x):
    """Samples from noise x; `answer(x, alpha, sigma)` is the denoised content."""
    for now, then in zip(alpha_bar[:-1], alpha_bar[1:], strict=True):
        alpha, sigma = now.sqrt(), (1 - now).sqrt()
        m = answer(x, alpha, sigma)
        # <solution>
        epsilon = (x - alpha * m) / sigma
        x = then.sqrt() * m + (1 - then).sqrt() * epsilon
        # </solution>
    return x


# %%
torch.manual_seed(0)
noise = torch.randn(4000)
samples = ddim(lambda x, alpha, sigma: denoise(x, alpha, sigma, mu=2.0, s=0.5), noise)
print(f"mean {samples.mean():.3f}, standard deviation {samples.std():.3f}")
same(samples.mean(), 2.0, rtol=0.02)
same(samples.std(), 0.5, rtol=0.05)

# %% [markdown]
# ## 3 Two trajectories
#
# Now two contents with a denoiser each, say the left and the right half of a picture, here one number each. Each denoiser is
# perfect for its own half and has never seen the other. The true halves correlate by $\rho = 0.9$.
# %%
rho = 0.9
noise = torch.randn(4000, 2)
independent = ddim(denoise, noise)
print(f"correlation {torch.corrcoef(independent.T)[0, 1]:+.2f}, should be {rho}")


# %% [markdown]
# ## 4 The joint score
#
# Let $g$ be a Gaussian with covariance $\Sigma = \begin{pmatrix}1&\rho\\\rho&1\end{pmatrix}$. The joint model takes from the denoisers
# what they know, and from $g$ the dependence alone (Eq. 1):
#
# $$ p(x_0) \propto \prod_i p_i(x_0^i) \; \frac{g(x_0)}{\prod_i g_i(x_0^i)} . $$
#
# Given the noisy states, each denoiser contributes evidence: a mean $m_i$, and a variance $C_i$. For normal contents of variance
# one, $C_i^{-1} = 1 + \mathrm{snr}$. The rest is the first notebook (Eq. 5, 6):
#
# $$ \Lambda = \mathrm{diag}(C_i^{-1}) + \Sigma^{-1} - I, \qquad \eta = \mathrm{diag}(C_i^{-1})\, m, \qquad m^{\text{joint}} = \Lambda^{-1}\eta . $$
#
# **Exercise 4.** Write it, for a batch of states.
# %%
def joint_answer(x_t, alpha, sigma, rho=rho):
    """m^joint (n, 2) of two trajectories of standard normal contents with correlation rho."""
    m = denoise(x_t, alpha, sigma)  # (n, 2)
    Sigma = torch.tensor([[1.0, rho], [rho, 1.0]])
    # <solution>
    C_inverse = (1 + alpha**2 / sigma**2) * torch.eye(2)
    Lambda = C_inverse + torch.linalg.inv(Sigma) - torch.eye(2)
    eta = m @ C_inverse
    return torch.linalg.solve(Lambda, eta.T).T
    # </solution>


# %%
states = torch.randn(6, 2)
graph = ps.chain_graph(2, shape=1, potential=ps.Correlation(rho))
own = {i: denoise(states[:, i : i + 1], 0.8, 0.6) for i in (0, 1)}
theirs = ps.JointDenoiser(graph)({i: states[:, i : i + 1] for i in (0, 1)}, own, level).mean
same(joint_answer(states, 0.8, 0.6), torch.cat([theirs[0], theirs[1]], 1))


# %% [markdown]
# Tweedie's formula holds for both together, with $m^{\text{joint}}$ for $m$. For Gaussians the truth is known: $x_t$ has covariance
# $\alpha^2\Sigma + \sigma^2 I$.
#
# **Exercise 5.** Compute the joint score from your answer, and the true one.
# %%
def joint_score(x_t, alpha, sigma):
    """From m^joint, (n, 2)."""
    # <solution>
    return (alpha * joint_answer(x_t, alpha, sigma) - x_t) / sigma**2
    # </solution>


def true_score(x_t, alpha, sigma):
    """Of N(0, alpha^2 Sigma + sigma^2 I), (n, 2)."""
    Sigma = torch.tensor([[1.0, rho], [rho, 1.0]])
    # <solution>
    noisy = alpha**2 * Sigma + sigma**2 * torch.eye(2)
    return -x_t @ torch.linalg.inv(noisy)
    # </solution>


# %%
for alpha in (0.2, 0.6, 0.95):
    same(joint_score(states, alpha, (1 - alpha**2) ** 0.5), true_score(states, alpha, (1 - alpha**2) ** 0.5))

joint = ddim(joint_answer, noise)
print(f"correlation {torch.corrcoef(joint.T)[0, 1]:+.3f}, variances {joint.var(0).tolist()}")
figure, axes = plt.subplots(1, 2, figsize=(6, 2.9), sharex=True, sharey=True)
for axis, pairs, title in zip(axes, (independent, joint), ("independent", "joint"), strict=True):
    axis.scatter(*pairs[:800].T, s=4, alpha=0.4)
    axis.set(title=title, aspect="equal", xlim=(-4, 4), ylim=(-4, 4))
assert abs(torch.corrcoef(joint.T)[0, 1] - rho) < 0.02


# %% [markdown]
# Two denoisers that know one coordinate each, one number $\rho$, and the samples are those of the joint distribution. Nobody had to
# choose how the coupling fades as noise goes: potentials live on clean contents, and Eq. 5 weighs them against the denoisers.
#
# ## 5 Averaging
#
# Most methods that sample several trajectories together average what denoisers say. **Exercise 6.** Replace each answer by the mean
# of the two, sample, and compare variances. What is lost?
# %%
def averaged_answer(x_t, alpha, sigma):
    """Both trajectories get the mean of both answers, (n, 2)."""
    m = denoise(x_t, alpha, sigma)
    # <solution>
    return m.mean(1, keepdim=True).expand(-1, 2)
    # </solution>


# %%
averaged = ddim(averaged_answer, noise)
print(f"averaged: correlation {torch.corrcoef(averaged.T)[0, 1]:+.3f}, variances {averaged.var(0).tolist()}")
print(f"   joint: correlation {torch.corrcoef(joint.T)[0, 1]:+.3f}, variances {joint.var(0).tolist()}")
assert averaged.var() < 0.7 * joint.var()

# %% [markdown]
# Averaged trajectories agree, and vary less: in a picture, that is blur. (Where trajectories *are* the same pixels of one canvas,
# averaging is right about those, and says that nothing else correlates: Eq. 12.)
#
# ## 6 Beyond Gaussians
#
# Real denoisers are not Gaussian. Let each content be near $-1$ or near $+1$, and let both have the same sign. The Gaussian $g$ is a
# crude model of that, but it has the right correlation, and the denoisers know the rest.
#
# What changes is $C_i$: between the modes a denoiser is unsure, near one of them it is sure. Its own derivative tells (Eq. 4):
#
# $$ C_i = \frac{\sigma^2}{\alpha}\, \frac{\partial m_i}{\partial x_t^i} . $$
#
# **Exercise 7.** Compute $C$ with autograd, for states `x_t` of shape (n,).
# %%
modes = ps.MixtureDenoiser(
    torch.tensor([0.5, 0.5]), torch.tensor([[-1.0], [1.0]]), torch.full((2, 1, 1), 0.03)
)


def bimodal(x_t, alpha, sigma):
    """E[x_0 | x_t] of one number near -1 or +1, for any shape."""
    return modes.denoise(x_t.reshape(-1, 1), ps.NoiseLevel(float(alpha), float(sigma))).reshape(x_t.shape)


def own_covariance(x_t, alpha, sigma):
    """C (n,) by Eq. 4."""
    x_t = x_t.detach().requires_grad_()
    # <solution>
    (slope,) = torch.autograd.grad(bimodal(x_t, alpha, sigma).sum(), x_t)
    return sigma**2 / alpha * slope
    # </solution>


# %%
x_t = torch.linspace(-2, 2, 81)
C = own_covariance(x_t, 0.8, 0.6)
same(C, modes.posterior(x_t[:, None], level).covariance.flatten())
plt.figure(figsize=(5, 2.4))
plt.plot(x_t, C)
plt.xlabel("noisy state")
plt.title("how unsure the denoiser is")

# %% [markdown]
# `ps.sample` does all of this, on any graph. Does the denoisers' own $C_i$ help?
# %%
strength = 0.93  # correlation of two numbers with the same sign, about
pair = torch.tensor([[1.03, 1.03 * strength], [1.03 * strength, 1.03]])
graph = ps.chain_graph(2, shape=1, potential=ps.JointGaussian(covariance=pair))
agreement = {}
for label, options in {
    "independent": {"couple": False},
    "surrogate C": {"posterior_covariance": "surrogate"},
    "own C": {"posterior_covariance": "denoiser"},
}.items():
    result = ps.sample(
        graph, modes, DDIMScheduler(clip_sample=False), 50, num_samples=2000, progress=False, **options
    )
    agreement[label] = (result.samples[0] * result.samples[1] > 0).double().mean().item()
    print(f"{label:>12}: same sign in {agreement[label]:.0%}")
assert agreement["own C"] > agreement["surrogate C"] > agreement["independent"] + 0.2

# %% [markdown]
# ## 7 Learn it
#
# So far somebody told us $\rho$. From joint clean samples it is learned, edge by edge and mode by mode.
#
# **Exercise 8.** Fit an empty pair graph to the data, and print the table of correlations.
# %%
news = torch.randn(500, 2)
data = {0: news[:, :1], 1: 0.6 * news[:, :1] + 0.8 * news[:, 1:]}
empty = ps.chain_graph(2, shape=1)
fitted = None
# <solution>
fitted = ps.fit(empty, data)
print(ps.correlations(fitted))
# </solution>

# %%
(row,) = ps.correlations(fitted)
assert row.low < 0.6 < row.high
print("correct")

# %% [markdown]
# **To take home**
#
# 1. A denoiser's answer is evidence about the clean content; Tweedie's formula makes it a score.
# 2. Evidence and a Gaussian of the dependence give $m^{\text{joint}}$, by messages on a graph. That is the joint score.
# 3. It replaces the denoised content in the scheduler's step. Nothing else changes.
# 4. Averaging is the special case without correlation, and costs variance.
# 5. Correlations are learned from data.
#
# `examples/minisync.py` has all of it in one file.
