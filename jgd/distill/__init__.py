"""Distill: a teacher into a student.

``student = jgd.distill.offline(net, teacher, objective, tx)(key, task)`` is objective × who teaches whom ×
data policy; a method is a short file that names its point in that grid.
"""

from jgd.distill.crd import crd
from jgd.distill.data import predict
from jgd.distill.lelp import lelp, random_subclasses, subclassed
from jgd.distill.logits import bd_kd, ctkd, dist, dkd, hinton, kdcl, mix_kd, nkd, pld, ramp, standardized
from jgd.distill.mi_alpha import mi_alpha
from jgd.distill.policies import Policy, chain, crop_flip, cutmix, gaussian_noise, mixup
from jgd.distill.schedule import Distillation, assistants, generations, offline, online, scratch
from jgd.distill.terms import linear, mean_teacher, mutual, supervised, term
from jgd.distill.trg import trg

__all__ = [
    "Distillation",
    "Policy",
    "assistants",
    "bd_kd",
    "chain",
    "crd",
    "crop_flip",
    "ctkd",
    "cutmix",
    "dist",
    "dkd",
    "gaussian_noise",
    "generations",
    "hinton",
    "kdcl",
    "lelp",
    "linear",
    "mean_teacher",
    "mi_alpha",
    "mix_kd",
    "mixup",
    "mutual",
    "nkd",
    "offline",
    "online",
    "pld",
    "predict",
    "ramp",
    "random_subclasses",
    "scratch",
    "standardized",
    "subclassed",
    "supervised",
    "term",
    "trg",
]
