"""Distill: a teacher into a student.

``student = jgd.distill.offline(net, teacher, objective, tx)(key, task)`` is objective × who teaches whom ×
data policy; a method is a short file that names its point in that grid. Where a method has the name of its
module, what a user calls wins.
"""

from jgd.distill import autodistiller, pruning
from jgd.distill.crd import crd
from jgd.distill.data import predict
from jgd.distill.dot import apart, by_source
from jgd.distill.features import (
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
from jgd.distill.layers import emd, layers
from jgd.distill.lelp import lelp, random_subclasses, subclassed
from jgd.distill.logits import bd_kd, ctkd, dist, dkd, hinton, kdcl, mix_kd, nkd, pld, ramp, standardized
from jgd.distill.mi_alpha import mi_alpha
from jgd.distill.one import Branched, one, sigmoid_ramp
from jgd.distill.policies import (
    Policy,
    chain,
    crop_flip,
    cutmix,
    gaussian_noise,
    mixup,
    token_dropout,
    token_swap,
)
from jgd.distill.schedule import Distillation, assistants, generations, offline, online, scratch
from jgd.distill.simkd import reusing, simkd
from jgd.distill.terms import linear, mean_teacher, mutual, supervised, term
from jgd.distill.trg import trg
from jgd.registry import Catalog

__all__ = [
    "OBJECTIVES",
    "Branched",
    "Distillation",
    "Policy",
    "apart",
    "assistants",
    "autodistiller",
    "attention",
    "bd_kd",
    "by_source",
    "cc",
    "chain",
    "crd",
    "crop_flip",
    "ctkd",
    "cutmix",
    "dist",
    "dkd",
    "emd",
    "factor_transfer",
    "fitnet",
    "fsp",
    "gaussian_noise",
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
    "mixup",
    "mutual",
    "nkd",
    "nst",
    "ofd",
    "offline",
    "one",
    "online",
    "pkt",
    "pld",
    "pruning",
    "predict",
    "ramp",
    "random_subclasses",
    "reusing",
    "review",
    "rkd",
    "scratch",
    "sigmoid_ramp",
    "similarity",
    "simkd",
    "standardized",
    "subclassed",
    "supervised",
    "term",
    "token_dropout",
    "token_swap",
    "trg",
    "vid",
]

OBJECTIVES = Catalog(
    "objective",
    "jgd.distill",
    {
        "terms": ("ce", "listmle", "fitnet"),
        "logits": ("kd", "reverse-kl", "dkd", "nkd", "dist", "standardized", "ctkd", "pld"),
        "features": ("rkd", "sp", "pkt"),
        "crd": ("crd",),
        "mi_alpha": ("mi",),
    },
)
"""Objectives that need nothing but logits and an embedding, with their authors' weights.

Weights of objectives on embeddings are for batches of 64.
"""
