"""Linear maps: what a factor sees of a trajectory."""

from .base import Composition, LinearMap, Shape, as_integers, as_shape
from .features import DCT, ChannelMeans, FeatureMap, Features
from .index import Crop, Flip, Identity, IndexMap, Mask, Permutation, Rotate, Tokens, as_mask, element_index
from .lookup import Lookup
from .sparse import SparseMap, is_sparse, sparse_entries

__all__ = [
    "DCT",
    "ChannelMeans",
    "Composition",
    "Crop",
    "FeatureMap",
    "Features",
    "Flip",
    "Identity",
    "IndexMap",
    "LinearMap",
    "Lookup",
    "Mask",
    "Permutation",
    "Rotate",
    "Shape",
    "SparseMap",
    "Tokens",
    "as_integers",
    "as_mask",
    "as_shape",
    "element_index",
    "is_sparse",
    "sparse_entries",
]
