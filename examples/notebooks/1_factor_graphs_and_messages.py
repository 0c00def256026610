# %% [markdown]
# # Gaussian factor graphs and messages
#
# A class of 90 minutes. You need to know what a covariance matrix is. Afterwards you can
#
# * write a Gaussian in information form and combine evidence by adding,
# * build the precision matrix of a factor graph,
# * solve it by messages, and say when that is exact,
# * tell a potential that states a *correlation* from one that pulls.
#
# Cells marked **Exercise** have a line to fill in; the cell after each checks your answer. The checks compare with
# pgm_sync, which does the same on any graph.
#
# | | minutes |
# |---|---|
# | 1 Information form | 15 |
# | 2 A factor graph | 15 |
# | 3 One message | 15 |
# | 4 Two sweeps | 15 |
# | 5 Correlations | 15 |
# | 6 Loops | 15 |
# %%
import matplotlib.pyplot as plt
import torch

import pgm_sync as ps
from pgm_sync.inference import belief_propagation as bp

torch.set_default_dtype(torch.float64)


def same(mine, true):
    """Check an answer."""
    torch.testing.assert_close(torch.as_tensor(mine), torch.as_tensor(true), rtol=1e-6, atol=1e-8)
    print("correct")


# %% [markdown]
# ## 1 Information form
#
# A Gaussian is usually given by its mean $\mu$ and covariance $\Sigma$. For combining evidence another form is handier:
#
# $$\log p(x) = -\tfrac12 x^\top \Lambda x + \eta^\top x + \text{const}, \qquad \Lambda = \Sigma^{-1}, \quad \eta = \Lambda\mu .$$
#
# $\Lambda$ is the *precision*. Multiplying two densities adds their logarithms, so it adds their $\Lambda$ and their $\eta$.
#
# **Exercise 1.** Two people measured the same quantity: one says $3 \pm 1$, the other $4 \pm 0.5$ (standard deviations). What do
# both say together? Give the mean and the standard deviation.
# %%
def combine(mean_a, deviation_a, mean_b, deviation_b):
    """Mean and standard deviation of the product of two Gaussian densities."""
    # <solution>
    precision = 1 / deviation_a**2 + 1 / deviation_b**2
    eta = mean_a / deviation_a**2 + mean_b / deviation_b**2
    return eta / precision, precision**-0.5
    # </solution>


# %%
mean, deviation = combine(3.0, 1.0, 4.0, 0.5)
print(f"{mean:.3f} ± {deviation:.3f}")
same([mean, deviation], [3.8, 0.2**0.5])

# %% [markdown]
# Zeros of $\Lambda$ mean something: $\Lambda_{ij} = 0$ says that $x_i$ and $x_j$ are independent *once everything else is known*.
# A random walk shows it. Its covariance is full, its precision has three diagonals: each position depends on the one before, and
# nothing else.
# %%
steps = torch.tril(torch.ones(6, 6))
walk = steps @ steps.T
figure, axes = plt.subplots(1, 2, figsize=(6, 2.6))
for axis, matrix, title in zip(
    axes, (walk, torch.linalg.inv(walk)), ("covariance", "precision"), strict=True
):
    axis.imshow(matrix.numpy(), cmap="RdBu_r", vmin=-6, vmax=6)
    axis.set(title=title, xticks=[], yticks=[])

# %% [markdown]
# ## 2 A factor graph
#
# A factor graph says which quantities talk to each other directly. Ours is a chain of five numbers. Neighbours are tied by
# springs, $\psi(x_i, x_j) = e^{-\frac{\lambda}{2}(x_i - x_j)^2}$, and each number has evidence of its own: a mean $m_i$ with
# precision $\pi_i$.
#
# In information form a spring adds $\lambda \begin{pmatrix}1 & -1\\ -1 & 1\end{pmatrix}$ to the rows and columns of its ends.
#
# **Exercise 2.** Build $\Lambda$ and $\eta$ of the whole chain.
# %%
spring = 2.0
m = torch.tensor([1.0, 0.0, 0.0, 0.0, -1.0])
pi = torch.tensor([10.0, 0.2, 0.2, 0.2, 5.0])


def assemble(m, pi, spring, edges):
    """Precision (N, N) and eta (N,) of springs between the `edges` and evidence (m, pi) on every node."""
    Lambda = torch.zeros(len(m), len(m))
    eta = torch.zeros(len(m))
    # <solution>
    Lambda += torch.diag(pi)
    eta += pi * m
    for i, j in edges:
        Lambda[i, i] += spring
        Lambda[j, j] += spring
        Lambda[i, j] -= spring
        Lambda[j, i] -= spring
    # </solution>
    return Lambda, eta


# %%
chain = [(0, 1), (1, 2), (2, 3), (3, 4)]
Lambda, eta = assemble(m, pi, spring, chain)
graph = ps.chain_graph(5, shape=1, potential=ps.Attraction(spring))
evidence = {i: (m[i : i + 1], pi[i : i + 1]) for i in range(5)}
exact = ps.infer(graph, evidence)
same(torch.linalg.solve(Lambda, eta), torch.cat([exact.mean[i] for i in range(5)]))
same(torch.linalg.inv(Lambda).diagonal(), torch.cat([exact.variance[i] for i in range(5)]))
graph


# %% [markdown]
# ## 3 One message
#
# Solving $\Lambda\mu = \eta$ densely costs $N^3$. Messages use the zeros. The message of $j$ to its neighbour $i$ is what is left
# for $i$ when $j$ is integrated out:
#
# $$\int e^{-\frac12 c x_j^2 + h x_j - \Lambda_{ij} x_i x_j} \, dx_j \;\propto\; e^{-\frac12 P_{ji} x_i^2 + h_{ji} x_i}, $$
#
# where $c$ and $h$ are all that $j$ knows by itself and from its *other* neighbours: $c = \Lambda_{jj} + \sum_{k \ne i} P_{kj}$,
# $h = \eta_j + \sum_{k\ne i} h_{kj}$.
#
# **Exercise 3.** Complete the square, and write the message: $P_{ji}$ and $h_{ji}$ from $c$, $h$ and $\Lambda_{ij}$.
# %%
def message(c, h, Lambda_ij):
    """Precision and eta that integrating out the sender leaves at the receiver."""
    # <solution>
    return -(Lambda_ij**2) / c, -Lambda_ij * h / c
    # </solution>


# %%
P, h = message(Lambda[0, 0], eta[0], Lambda[0, 1])
network = bp.network(graph, evidence)
theirs = bp.message(network, bp.step(network, bp.init(network), (0, 1)), 0, 1)
print(f"node 0 tells node 1: precision {P:.3f}, eta {h:.3f}")
same([P, h], [theirs.precision.item(), theirs.eta.item()])


# %% [markdown]
# *To discuss.* Why is the precision of the message negative? (Node 1 has already been given the full stiffness of the spring, as
# if its other end were fixed.)
#
# ## 4 Two sweeps
#
# The first node of the chain has no other neighbour and can speak at once; then the second can; and so on to the right end, and
# back. After that everyone has heard everything, and
#
# $$\text{precision of node } i = \Lambda_{ii} + \sum_k P_{ki}, \qquad \text{its mean} = \frac{\eta_i + \sum_k h_{ki}}{\Lambda_{ii} + \sum_k P_{ki}} .$$
#
# **Exercise 4.** Two sweeps: fill `P[j, i]` and `h[j, i]` for every pair of neighbours, with your `message`.
# %%
def sweep(Lambda, eta):
    """All messages of a chain, ``{(from, to): precision}`` and ``{(from, to): eta}``."""
    N = len(eta)
    P, h = {}, {}
    order = [(j, j + 1) for j in range(N - 1)] + [(j, j - 1) for j in range(N - 1, 0, -1)]
    for j, i in order:
        others = [k for k in (j - 1, j + 1) if 0 <= k < N and k != i]
        # <solution>
        c = Lambda[j, j] + sum(P[k, j] for k in others)
        own = eta[j] + sum(h[k, j] for k in others)
        P[j, i], h[j, i] = message(c, own, Lambda[i, j])
        # </solution>
    return P, h


# %%
P, h = sweep(Lambda, eta)
precision = torch.stack([Lambda[i, i] + sum(P[k, j] for k, j in P if j == i) for i in range(5)])
total = torch.stack([eta[i] + sum(h[k, j] for k, j in h if j == i) for i in range(5)])
same(total / precision, torch.linalg.solve(Lambda, eta))
same(1 / precision, torch.linalg.inv(Lambda).diagonal())

figure, axis = plt.subplots(figsize=(5.5, 2.6))
axis.errorbar(
    range(5), (total / precision).numpy(), precision.rsqrt().numpy(), fmt="o", capsize=3, label="joint"
)
axis.errorbar(
    [x + 0.15 for x in range(5)],
    m.numpy(),
    pi.rsqrt().numpy(),
    fmt="o",
    capsize=3,
    alpha=0.4,
    label="own evidence",
)
axis.set(xlabel="node", xticks=range(5), ylim=(-2.6, 2.6))
axis.legend()

# %% [markdown]
# Eight messages instead of a matrix inverse, means *and* variances. For a chain of $N$ nodes the cost is proportional to $N$. The
# same works on every tree.
#
# ## 5 Correlations
#
# A spring makes neighbours similar, and it makes them *small*: it multiplies the density by something that is largest where both
# agree, and two beliefs about almost the same number are counted as two. Look at what it does to two numbers of variance one.
# %%
for strength in (0.5, 2.0, 10.0):
    pair = torch.linalg.inv(torch.eye(2) + strength * torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    print(f"spring {strength:>4}: correlation {pair[0, 1] / pair[0, 0]:.2f}, variance {pair[0, 0]:.2f}")


# %% [markdown]
# We want a potential that makes two numbers correlate by $\rho$ and leaves the variance of each at one. Take the joint density and
# divide the two marginals out, $\psi_{ij} = g_{ij} / (g_i g_j)$: what remains is the dependence alone.
#
# **Exercise 5.** Write the precision of that potential: the inverse of $\begin{pmatrix}1 & \rho\\ \rho & 1\end{pmatrix}$ minus the
# precision of the two marginals. (On paper: $\frac{1}{1-\rho^2}\begin{pmatrix}\rho^2 & -\rho\\ -\rho & \rho^2\end{pmatrix}$, Eq. 2.)
# %%
def correlation_potential(rho):
    """Precision (2, 2) of g_ij / (g_i g_j)."""
    # <solution>
    joint = torch.tensor([[1.0, rho], [rho, 1.0]])
    return torch.linalg.inv(joint) - torch.eye(2)
    # </solution>


# %%
same(correlation_potential(0.7), torch.tensor([[0.49, -0.7], [-0.7, 0.49]]) / 0.51)
print("eigenvalues", torch.linalg.eigvalsh(correlation_potential(0.7)).tolist())

row = torch.eye(4)  # four numbers, variance one each
for i in range(3):
    row[i : i + 2, i : i + 2] += correlation_potential(0.7)
covariance = torch.linalg.inv(row)
print(covariance)
same(covariance.diagonal(), torch.ones(4))
same(covariance[0, 3], 0.7**3)

# %% [markdown]
# Variances stay at one, and correlations multiply along the chain. *To discuss.* One eigenvalue of the potential is negative, so by
# itself it is no density. What makes the whole proper?
#
# ## 6 Loops
#
# Close the chain to a ring: nobody can speak first any more. Let all speak at once, starting from nothing, again and again.
#
# **Exercise 6.** One round: all new messages from all old ones.
# %%
ring = [(i, (i + 1) % 6) for i in range(6)]
torch.manual_seed(0)
Lambda, eta = assemble(torch.randn(6), torch.ones(6), 3.0, ring)
neighbours = {i: [(i - 1) % 6, (i + 1) % 6] for i in range(6)}


def one_round(P, h):
    """All messages after one more round."""
    new_P, new_h = {}, {}
    for j in range(6):
        for i in neighbours[j]:
            # <solution>
            c = Lambda[j, j] + sum(P[k, j] for k in neighbours[j] if k != i)
            own = eta[j] + sum(h[k, j] for k in neighbours[j] if k != i)
            new_P[j, i], new_h[j, i] = message(c, own, Lambda[i, j])
            # </solution>
    return new_P, new_h


# %%
P = h = {(j, i): torch.tensor(0.0) for j in range(6) for i in neighbours[j]}
means, variances = [], []
for _ in range(40):
    precision = torch.stack([Lambda[i, i] + sum(P[k, i] for k in neighbours[i]) for i in range(6)])
    total = torch.stack([eta[i] + sum(h[k, i] for k in neighbours[i]) for i in range(6)])
    means.append(total / precision)
    variances.append(1 / precision)
    P, h = one_round(P, h)

true_mean, true_variance = torch.linalg.solve(Lambda, eta), torch.linalg.inv(Lambda).diagonal()
same(means[-1], true_mean)
figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.6), layout="constrained")
axes[0].semilogy([(mean - true_mean).abs().max() for mean in means])
axes[0].set(title="largest error of a mean", xlabel="round")
axes[1].plot([(variance / true_variance)[0] for variance in variances])
axes[1].axhline(1, color="grey", lw=1, ls=":")
axes[1].set(title="variance, believed / true", xlabel="round")
assert variances[-1].max() < true_variance.min()

# %% [markdown]
# Means are exact, variances too small: on a ring your own evidence comes back to you from the other side, as if it were news.
# Elimination (what `ps.infer` does by default) joins neighbours that become tied when a node is integrated out, and stays exact.
#
# **To take home**
#
# 1. Evidence adds up in information form.
# 2. A message is a node integrated out.
# 3. On a tree, two sweeps give everything. On loops, iterated messages give means.
# 4. Divide the marginals out, and a potential *is* a correlation.
#
# The second notebook puts denoisers in the place of the evidence.
