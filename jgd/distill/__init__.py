"""Distill: a teacher into a student.

``student = jgd.distill.offline(net, teacher, objective, tx)(key, task)`` is objective × who teaches whom ×
augmentation; a method is a short private file that names its point in that grid.
"""

from jgd.distill import autodistiller, probes, pruning, ridge, scores
from jgd.distill._crd import crd
from jgd.distill._dot import apart, by_source
from jgd.distill._features import (
    attention,
    cc,
    factor_transfer,
    fitnet,
    fsp,
    ickd,
    nst,
    ofd,
    pkt,
    review,
    rkd,
    similarity,
    vid,
)
from jgd.distill._layers import emd, layers
from jgd.distill._lelp import lelp, random_subclasses, subclassed
from jgd.distill._logits import bd_kd, ctkd, dist, dkd, hinton, kdcl, mix_kd, nkd, pld, ramp, standardized
from jgd.distill._mi_alpha import mi_alpha
from jgd.distill._one import Branched, one, sigmoid_ramp
from jgd.distill._simkd import reusing, simkd
from jgd.distill._trg import trg
from jgd.distill.data import predict
from jgd.distill.recipes import Distillation, assistants, generations, offline, online, scratch
from jgd.distill.terms import linear, mean_teacher, mutual, supervised, term
from jgd.registry import Catalog

__all__ = [
    "OBJECTIVES",
    "Branched",
    "Distillation",
    "apart",
    "assistants",
    "attention",
    "autodistiller",
    "bd_kd",
    "by_source",
    "cc",
    "crd",
    "ctkd",
    "dist",
    "dkd",
    "emd",
    "factor_transfer",
    "fitnet",
    "fsp",
    "generations",
    "hinton",
    "ickd",
    "kdcl",
    "layers",
    "lelp",
    "linear",
    "mean_teacher",
    "mi_alpha",
    "mix_kd",
    "mutual",
    "nkd",
    "nst",
    "ofd",
    "offline",
    "one",
    "online",
    "pkt",
    "pld",
    "predict",
    "probes",
    "pruning",
    "ramp",
    "random_subclasses",
    "reusing",
    "review",
    "ridge",
    "rkd",
    "scores",
    "scratch",
    "sigmoid_ramp",
    "similarity",
    "simkd",
    "standardized",
    "subclassed",
    "supervised",
    "term",
    "trg",
    "vid",
]

OBJECTIVES = Catalog(
    "objective",
    "jgd.distill",
    {
        "terms": ("ce", "listmle", "fitnet"),
        "_logits": ("kd", "reverse-kl", "dkd", "nkd", "dist", "standardized", "ctkd", "pld"),
        "_features": ("rkd", "sp", "pkt"),
        "_crd": ("crd",),
        "_mi_alpha": ("mi",),
    },
)
"""Objectives that need nothing but logits and an embedding, with their authors' weights.

Weights of objectives on embeddings are for batches of 64.
"""
