"""Graph networks for node classification, on sparse, dense and batched graphs.

Every network is called as ``net(A, x, train=...)`` with an operator ``A`` and features ``x`` (dense, or a
sparse operator), and returns `Outputs` with logits ``[N, C]`` and the embedding that the last layer reads.
The class attribute ``adjacency`` holds the normalisation that ``A`` needs::

    net = GCN(num_classes=7)
    A = operator(graph, **net.adjacency)

Existing loops of a graph: GCN, SGC, APPNP and GPRGNN add another of weight 1 (``self_loops=True``;
``"remaining"`` in `operator` is the rule of PyTorch Geometric); GAT counts each once; for GraphSAGE, GIN and
ChebNet, which add none, a loop makes a node its own neighbour. In a directed graph messages follow the edges,
and ``"sym"`` uses arriving and leaving weights, see `jgd.graph.operator`.

A linear map and a propagation commute, so all layers transform first and propagate the narrower result.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jgd.core import Outputs
from jgd.graph import Operator, SparseOperator, segment_pool
from jgd.nn.layers import Dropout, Features, Linear, Norm
from jgd.registry import Entry

__all__ = ["APPNP", "GAT", "GCN", "GIN", "GPRGNN", "MLP", "SGC", "ChebNet", "GraphSAGE", "Readout"]

_SYMMETRIC = {"normalize": "sym", "self_loops": True}


# --- one layer each -----------------------------------------------------------------------------


class _Dense(nn.Module):
    features: int

    @nn.compact
    def __call__(self, a, x, *, train, last):
        del a, train, last
        return Linear(self.features)(x)


class _GCNLayer(nn.Module):
    """Layer ``Â (x W) + b``."""

    features: int

    @nn.compact
    def __call__(self, a, x, *, train, last):
        del train, last
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return a @ Linear(self.features, use_bias=False)(x) + bias


class _SAGELayer(nn.Module):
    """Layer ``x W_1 + mean(neighbours' x) W_2 + b``."""

    features: int

    @nn.compact
    def __call__(self, a, x, *, train, last):
        del train, last
        return Linear(self.features, name="own")(x) + a @ Linear(
            self.features, use_bias=False, name="neighbours"
        )(x)


class _GINLayer(nn.Module):
    """Layer ``MLP((1 + eps) x + sum(neighbours' x))`` with two layers of its own."""

    features: int
    hidden: int

    @nn.compact
    def __call__(self, a, x, *, train, last):
        del train, last
        eps = self.param("eps", nn.initializers.zeros, ())
        y = Linear(self.hidden, use_bias=False)(x)
        y = (1 + eps) * y + a @ y + self.param("bias", nn.initializers.zeros, (self.hidden,))
        return Linear(self.features)(nn.relu(y))


class _ChebLayer(nn.Module):
    """Layer ``sum_k T_k(L̃) x W_k`` with ``L̃ = L - I = -D^-1/2 A D^-1/2``, summed by Clenshaw's recurrence."""

    features: int
    order: int

    @nn.compact
    def __call__(self, a, x, *, train, last):
        del train, last
        terms = [Linear(self.features, use_bias=k == 0)(x) for k in range(self.order)]
        after, following = jnp.zeros_like(terms[0]), jnp.zeros_like(terms[0])
        for y in reversed(terms[1:]):
            after, following = y - 2 * (a @ after) - following, after
        return terms[0] - a @ after - following


class _GATLayer(nn.Module):
    """Additive attention over the neighbours; heads are concatenated, in the last layer averaged."""

    features: int
    heads: int
    dropout: float

    @nn.compact
    def __call__(self, a, x, *, train, last):
        if not last and self.features % self.heads:
            raise ValueError(f"hidden must be a multiple of the {self.heads} heads, got {self.features}")
        width = self.features if last else self.features // self.heads
        y = Linear(self.heads * width, use_bias=False)(x).reshape(-1, self.heads, width)
        to, of = (
            jnp.einsum(
                "nhf,hf->nh", y, self.param(name, nn.initializers.glorot_uniform(), (self.heads, width))
            )
            for name in ("receiver", "sender")
        )
        # An additive score is an inner product: <(r, 1), (1, s)> = r + s.
        one = jnp.ones_like(to)
        scores = nn.leaky_relu(a.scores(jnp.stack([to, one], -1), jnp.stack([one, of], -1)), 0.2)
        if isinstance(a, SparseOperator):  # as in a dense operator, a weight of zero is not an edge
            scores = jnp.where((a.values != 0).reshape(-1, 1), scores, -1e30)
        weights: Any = a.softmax(scores)
        weights = Dropout(self.dropout)(weights, train=train)
        z = a.with_values(weights) @ y
        z = z.mean(1) if last else z.reshape(z.shape[0], -1)
        return z + self.param("bias", nn.initializers.zeros, (z.shape[-1],))


# --- networks -----------------------------------------------------------------------------------


class _Stack(nn.Module):
    """Layers of dropout, convolution, normalisation and activation; the last convolution gives logits.

    Attributes:
      num_classes: Number of classes, the width of the output.
      hidden: Width of the hidden layers.
      layers: Number of layers.
      dropout: Dropout rate before each layer.
      norm: Normalisation after each layer but the last.
      residual: Whether to add the input of a layer to its output where the widths agree.
    """

    num_classes: int
    hidden: int = 256
    layers: int = 2
    dropout: float = 0.5
    norm: Literal["batch", "layer"] | None = None
    residual: bool = False

    adjacency: ClassVar[dict[str, Any]] = _SYMMETRIC

    def layer(self, features: int) -> nn.Module:
        """Return the convolution with ``features`` outputs."""
        raise TypeError(f"{type(self).__name__} defines no layer")

    @nn.compact
    def __call__(self, a: Operator, x: Features, *, train: bool = False) -> Outputs:
        """Classify the nodes."""
        if self.layers < 1:
            raise ValueError(f"a network needs at least one layer, got {self.layers}")
        for _ in range(self.layers - 1):
            dropped = Dropout(self.dropout)(x, train=train)
            y = self.layer(self.hidden)(a, dropped, train=train, last=False)
            y = nn.relu(Norm(self.norm)(y, train=train))
            if self.residual and y.shape == x.shape:
                y = y + (x.todense() if isinstance(x, Operator) else x)
            x = y
        dropped = Dropout(self.dropout)(x, train=train)
        return Outputs(self.layer(self.num_classes)(a, dropped, train=train, last=True), x)


class MLP(_Stack):
    """Multilayer perceptron, which ignores the graph."""

    def layer(self, features):
        """Return a linear map."""
        return _Dense(features)


class GCN(_Stack):
    """Graph convolutional network (Kipf and Welling, ICLR 2017)."""

    def layer(self, features):
        """Return ``Â (x W) + b``."""
        return _GCNLayer(features)


class GraphSAGE(_Stack):
    """GraphSAGE with mean aggregation over the whole neighbourhood (Hamilton et al., NeurIPS 2017)."""

    adjacency: ClassVar[dict[str, Any]] = {"normalize": "row", "self_loops": False}

    def layer(self, features):
        """Return ``x W_1 + mean(neighbours' x) W_2 + b``."""
        return _SAGELayer(features)


class GIN(_Stack):
    """Graph isomorphism network with learned eps (Xu et al., ICLR 2019)."""

    adjacency: ClassVar[dict[str, Any]] = {"normalize": None, "self_loops": False}

    def layer(self, features):
        """Return ``MLP((1 + eps) x + sum(neighbours' x))``."""
        return _GINLayer(features, self.hidden)


class ChebNet(_Stack):
    """Chebyshev filters of the Laplacian (Defferrard et al., NeurIPS 2016), with largest eigenvalue 2.

    Attributes:
      order: Number of polynomials; each layer reaches ``order - 1`` hops.
    """

    order: int = 3

    adjacency: ClassVar[dict[str, Any]] = {"normalize": "sym", "self_loops": False}

    def layer(self, features):
        """Return a polynomial filter."""
        return _ChebLayer(features, self.order)


class GAT(_Stack):
    """Graph attention network (Veličković et al., ICLR 2018). Weights of ``A`` only mark edges.

    Every node attends to itself once, with or without a loop in the graph; a weight of zero is not an edge.

    Attributes:
      heads: Number of heads; they share ``hidden`` in the hidden layers.
    """

    heads: int = 8

    adjacency: ClassVar[dict[str, Any]] = {"normalize": None, "self_loops": "remaining"}

    def layer(self, features):
        """Return attention over neighbours and the node itself."""
        return _GATLayer(features, self.heads, self.dropout)


class SGC(nn.Module):
    """Simplified graph convolution (Wu et al., ICML 2019): ``Â^K x W + b``.

    Attributes:
      hops: Number of propagations ``K``.
      dropout: Dropout rate on the features.
    """

    num_classes: int
    hops: int = 2
    dropout: float = 0.0

    adjacency: ClassVar[dict[str, Any]] = _SYMMETRIC

    @nn.compact
    def __call__(self, a: Operator, x: Features, *, train: bool = False) -> Outputs:
        """Classify the nodes; the embedding is the output before the bias."""
        y = Linear(self.num_classes, use_bias=False)(Dropout(self.dropout)(x, train=train))
        for _ in range(self.hops):
            y = a @ y
        return Outputs(y + self.param("bias", nn.initializers.zeros, (self.num_classes,)), y)


class APPNP(nn.Module):
    """Prediction, then propagation (Gasteiger et al., ICLR 2019): ``z <- (1 - alpha) Â z + alpha MLP(x)``.

    Attributes:
      hops: Number of propagations.
      alpha: Probability of teleporting back to the prediction.
    """

    num_classes: int
    hidden: int = 256
    layers: int = 2
    dropout: float = 0.5
    hops: int = 10
    alpha: float = 0.1

    adjacency: ClassVar[dict[str, Any]] = _SYMMETRIC

    @nn.compact
    def __call__(self, a: Operator, x: Features, *, train: bool = False) -> Outputs:
        """Classify the nodes."""
        h = MLP(self.num_classes, self.hidden, self.layers, self.dropout)(a, x, train=train)
        z = h.logits
        z, _ = jax.lax.scan(
            lambda z, _: ((1 - self.alpha) * (a @ z) + self.alpha * h.logits, None), z, length=self.hops
        )
        return Outputs(z, h.embedding)


class GPRGNN(nn.Module):
    """Generalised PageRank (Chien et al., ICLR 2021): ``sum_k gamma_k Â^k MLP(x)`` with learned weights.

    Negative weights make high-pass filters, which suit heterophilous graphs.

    Attributes:
      hops: Highest power of the adjacency.
      alpha: Teleport probability of PageRank, at whose weights ``alpha (1 - alpha)^k`` the learned ones
        start.
    """

    num_classes: int
    hidden: int = 256
    layers: int = 2
    dropout: float = 0.5
    hops: int = 10
    alpha: float = 0.1

    adjacency: ClassVar[dict[str, Any]] = _SYMMETRIC

    @nn.compact
    def __call__(self, a: Operator, x: Features, *, train: bool = False) -> Outputs:
        """Classify the nodes."""

        def pagerank(key, shape):
            del key
            k = jnp.arange(shape[0])
            return jnp.where(k < self.hops, self.alpha, 1.0) * (1 - self.alpha) ** k

        gamma = self.param("gamma", pagerank, (self.hops + 1,))
        h = MLP(self.num_classes, self.hidden, self.layers, self.dropout)(a, x, train=train)

        def hop(carry, weight):
            power, total = carry
            power = a @ power
            return (power, total + weight * power), None

        (_, z), _ = jax.lax.scan(hop, (h.logits, gamma[0] * h.logits), gamma[1:])
        return Outputs(z, h.embedding)


class Readout(nn.Module):
    """Classifier of whole graphs of a batch: a node network, a pooling, a linear map.

    Attributes:
      encoder: Network of this module; its ``num_classes`` is the width of the pooled representation.
      num_classes: Number of classes, the width of the output.
      pooling: Pooling over the nodes of each graph: ``"sum"``, ``"mean"`` or ``"max"``.
      dropout: Dropout rate on the pooled representation.
    """

    encoder: nn.Module
    num_classes: int
    pooling: Literal["sum", "mean", "max"] = "sum"
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        a: Operator,
        x: Features,
        graph_of: Int[Array, " N"],
        weight: Float[Array, " G"],
        root: Bool[Array, " N"] | None = None,
        *,
        train: bool = False,
    ) -> Outputs:
        """Classify ``G`` graphs.

        Args:
          a: Block-diagonal operator of the batch.
          x: Node features.
          graph_of: Graph of each node, ascending (see `jgd.graph.graph_ids`); ``G`` for padding.
          weight: Weight of each graph, of which only the static length is used.
          root: Mask of the pooled nodes, all by default; a forest of computation trees is read at its roots.
          train: Whether to apply dropout and to use batch statistics.
        """
        nodes = nn.relu(self.encoder(a, x, train=train).logits)
        pooled = segment_pool(nodes, graph_of, weight.shape[0], self.pooling, root)
        return Outputs(Linear(self.num_classes)(Dropout(self.dropout)(pooled, train=train)), pooled)


_KINDS = ("nodes", "graphs")

ENTRIES = (
    Entry("gcn", GCN, "Graph convolutional network.", "Kipf & Welling 2017", _KINDS),
    Entry("sgc", SGC, "Linear map of features that were propagated twice.", "Wu et al. 2019", _KINDS),
    Entry("sage", GraphSAGE, "Own features and the mean of all neighbours.", "Hamilton et al. 2017", _KINDS),
    Entry("gat", GAT, "Attention over neighbours.", "Veličković et al. 2018", _KINDS),
    Entry("appnp", APPNP, "Perceptron whose predictions are propagated.", "Gasteiger et al. 2019", _KINDS),
    Entry("cheb", ChebNet, "Chebyshev filters of the Laplacian.", "Defferrard et al. 2016", _KINDS),
    Entry("gin", GIN, "Sums over neighbours, then a perceptron.", "Xu et al. 2019", _KINDS),
    Entry("mlp", MLP, "Perceptron of node features, without the graph.", "", _KINDS),
    Entry("gprgnn", GPRGNN, "Propagation with learned weights of the hops.", "Chien et al. 2021", _KINDS),
)
