"""Distill: a teacher into a student.

``student = jgd.distill.offline(net, teacher, objective, tx)(key, task)`` is objective × who teaches whom ×
data policy; a method is a short file that names its point in that grid.
"""

from jgd.distill.data import predict
from jgd.distill.policies import Policy, chain, crop_flip, cutmix, gaussian_noise, mixup
from jgd.distill.schedule import Distillation, assistants, generations, offline, online, scratch
from jgd.distill.terms import linear, mean_teacher, mutual, supervised, term

__all__ = [
    "Distillation",
    "Policy",
    "assistants",
    "chain",
    "crop_flip",
    "cutmix",
    "gaussian_noise",
    "generations",
    "linear",
    "mean_teacher",
    "mixup",
    "mutual",
    "offline",
    "online",
    "predict",
    "scratch",
    "supervised",
    "term",
]
