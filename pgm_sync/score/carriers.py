"""What carries noise and content: a trajectory by itself, or the canvas that several trajectories show (section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import networkx as nx
import torch
from torch import Tensor

from ..errors import UnseenSiteError, WeightError
from ..graph.factor_graph import FactorGraph, Name
from ..inference.sites import Sites, shared_sites
from ..maps import Shape, element_index
from ..potentials import Equality


class View(NamedTuple):
    """Where a trajectory's elements lie on its carrier, and how much each counts there (Eq. 10).

    >>> import pgm_sync as ps
    >>> view = find_carriers(ps.wide_canvas((1, 1, 3), window=(1, 2), stride=1)).views["w1"]
    >>> view.index.tolist(), view.weight.tolist()
    ([1, 2], [0.5, 1.0])
    """

    carrier: int  # position among the carriers
    index: Tensor | None  # type: ignore[assignment]  # (D_i,) flat positions on the carrier; None: the trajectory is the carrier
    weight: Tensor | None  # (D_i,) Eq. 10; None: 1


class Carrier(NamedTuple):
    """One diffusion state: x_t^i = A_i z_t for every trajectory that views it (section 4).

    >>> import pgm_sync as ps
    >>> find_carriers(ps.chain_graph(2, (1, 8, 8))).carriers
    [Carrier(name=0, shape=(1, 8, 8)), Carrier(name=1, shape=(1, 8, 8))]
    """

    name: Name | None  # the trajectory or hidden canvas; None for sites that no single node shows
    shape: Shape  # of z_t, without the batch


class Carriers(NamedTuple):
    """The states that are actually sampled, and how trajectories (and hidden canvases) view them; see `find_carriers`.

    >>> import torch, pgm_sync as ps
    >>> carriers = find_carriers(ps.wide_canvas((1, 1, 3), window=(1, 2), stride=1))
    >>> windows = {"w0": torch.tensor([[[[1.0, 2.0]]]]), "w1": torch.tensor([[[[4.0, 5.0]]]])}
    >>> carriers.gather(windows)[0].flatten().tolist()  # Eq. 12: the mean of 2 and 4 where both show the site
    [1.0, 3.0, 5.0]
    """

    carriers: list[Carrier]  # in the order of their first trajectories
    views: dict[Name, View]  # of every trajectory and hidden canvas
    shapes: dict[Name, Shape]  # of every node

    def view(self, states: list[Tensor], name: Name) -> Tensor:
        """``A_i z``: what `name` shows of the states ``(batch, *shape)`` of all carriers."""
        view = self.views[name]
        state = states[view.carrier]
        if view.index is None:
            return state
        flat = state.flatten(1).index_select(1, view.index.to(state.device))
        return flat.reshape(len(state), *self.shapes[name])

    def gather(
        self, values: Mapping[Name, Tensor], weights: Mapping[Name, Tensor] | None = None
    ) -> list[Tensor]:
        """``z = sum_i A_i' w_i x_i`` per carrier (Eq. 12), from `values` ``(batch, *shape)`` by trajectory.

        `weights`, a partition of unity ``(D_i,)``, take the place of the graph's own.
        """
        out: dict[int, Tensor] = {}
        for name, value in values.items():
            view = self.views[name]
            if view.index is None or view.weight is None:
                out[view.carrier] = value
                continue
            shape = self.carriers[view.carrier].shape
            flat = out.get(view.carrier, value.new_zeros(len(value), torch.Size(shape).numel()))
            weight = view.weight if weights is None else weights[name]
            weighted = value.flatten(1) * weight.to(value)
            out[view.carrier] = flat.index_add(1, view.index.to(value.device), weighted)
        return [out[k].reshape(len(out[k]), *carrier.shape) for k, carrier in enumerate(self.carriers)]

    def complete(self, values: Mapping[Name, Tensor]) -> dict[Name, Tensor]:
        """`values` of all trajectories, and with them those of the hidden canvases that they show."""
        states = self.gather(values)
        return {name: values[name] if name in values else self.view(states, name) for name in self.views}

    def first(self, values: Mapping[Name, Tensor]) -> list[Tensor]:
        """One value per site of every carrier, of `values` by trajectory: that of the first trajectory that shows it.

        White noise stays white.
        """
        out: dict[int, Tensor] = {}
        for name in reversed(list(values)):
            view, value = self.views[name], values[name]
            if view.index is None:
                out[view.carrier] = value
                continue
            size = torch.Size(self.carriers[view.carrier].shape).numel()
            flat = out.get(view.carrier, value.new_zeros(len(value), size))
            out[view.carrier] = flat.index_copy(1, view.index.to(value.device), value.flatten(1))
        return [out[k].reshape(len(out[k]), *carrier.shape) for k, carrier in enumerate(self.carriers)]

    @property
    def shared(self) -> bool:
        """Whether any trajectory shows content that lives on a canvas."""
        return any(view.index is not None for view in self.views.values())


def find_carriers(graph: FactorGraph) -> Carriers:
    """Group the trajectories of a `graph` that Equality factors join.

    >>> import pgm_sync as ps
    >>> [carrier.name for carrier in find_carriers(ps.wide_canvas((3, 12, 48), window=(12, 12), stride=9)).carriers]
    ['canvas']

    Raises UnseenSiteError for canvas elements that no trajectory shows, WeightError for weights that are not a
    partition of unity, and what `shared_sites` raises.
    """
    sites = shared_sites(graph)
    equalities = [f for f in graph.factors if isinstance(graph.potential(f), Equality)]
    network = nx.Graph()
    network.add_nodes_from(graph.variables)
    for factor in equalities:
        nx.add_path(network, graph.scope(factor))
    position = {name: k for k, name in enumerate(graph.variables)}
    shapes = {name: graph.shape(name) for name in graph.variables}
    carriers: list[Carrier] = []
    views: dict[Name, View] = {}
    groups = sorted((sorted(group, key=position.__getitem__) for group in nx.connected_components(network)),
                    key=lambda group: position[group[0]])  # fmt: skip
    for group in groups:
        seen = [name for name in group if name in graph.trajectories]
        if len(group) == 1:
            if seen:
                views[group[0]] = View(len(carriers), None, None)
                carriers.append(Carrier(group[0], shapes[group[0]]))
            continue
        own = torch.unique(torch.cat([sites.index[name] for name in group]))
        canvas = next((n for n in group if n not in seen and len(sites.index[n]) == len(own)), None)
        order = own if canvas is None else sites.index[canvas]
        place = torch.full((sites.size,), -1)
        place[order] = torch.arange(len(order))
        weights = _weights(graph, sites, group, seen, equalities)
        _check_cover(sites, group, seen, own)
        for name in group:
            views[name] = View(len(carriers), place[sites.index[name]], weights.get(name))
        carriers.append(Carrier(canvas, (len(own),) if canvas is None else shapes[canvas]))
    return Carriers(carriers, views, shapes)


def _check_cover(sites: Sites, group: list[Name], seen: list[Name], own: Tensor) -> None:
    shown = torch.cat([sites.index[name] for name in seen]) if seen else own[:0]
    missing = own[~torch.isin(own, shown)]
    if len(missing):
        hidden = next(n for n in group if n not in seen and torch.isin(sites.index[n], missing).any())
        first = int(torch.isin(sites.index[hidden], missing).nonzero()[0])
        raise UnseenSiteError(
            f"no trajectory shows {len(missing)} of the {len(own)} elements of {hidden!r} (the first is its element "
            f"{first}); add windows that cover it, or make it smaller",
            name=hidden,
            count=len(missing),
        )


def _weights(
    graph: FactorGraph, sites: Sites, group: list[Name], seen: list[Name], equalities: list[Name]
) -> dict[Name, Tensor]:
    """Eq. 10's weights: as the Equality factors give them, or equal."""
    given: dict[Name, Tensor] = {}
    for factor in equalities:
        name, *_ = graph.scope(factor)
        weight = getattr(graph.potential(factor), "weight", None)
        if name not in seen or weight is None:
            continue
        view = graph.maps(factor)[0]
        full = torch.zeros(torch.Size(graph.shape(name)).numel(), dtype=torch.float64)
        full[element_index(view)] = (
            torch.as_tensor(weight, dtype=torch.float64).expand(view.out_shape).flatten()
        )
        given[name] = full
    total = torch.zeros(sites.size, dtype=torch.float64)
    if not given:
        for name in seen:
            total.index_add_(0, sites.index[name], torch.ones(len(sites.index[name]), dtype=torch.float64))
        return {name: 1 / total[sites.index[name]] for name in seen}
    missing = [name for name in seen if name not in given]
    if missing:
        raise WeightError(
            f"trajectory {missing[0]!r} has no canvas weight while {next(iter(given))!r} has one; give all or none",
            name=missing[0],
        )
    for name, weight in given.items():
        total.index_add_(0, sites.index[name], weight)
    own = torch.unique(torch.cat([sites.index[name] for name in seen]))
    error = (total[own] - 1).abs()
    if error.max() > 1e-4:
        worst = own[error.argmax()]
        names = [name for name in seen if (sites.index[name] == worst).any()]
        raise WeightError(
            f"the canvas weights of {', '.join(map(repr, names))} sum to {total[worst].item():.4g} where they meet, "
            "not to one; divide them by their sum",
            names=names,
        )
    return given
