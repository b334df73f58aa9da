"""The contracts of plugins, for our tests and for those of plugin authors: each check raises ContractError with a reason."""

from dfad_bench.testing.contract import ContractError
from dfad_bench.testing.faces import check_face_detector, check_gaze_estimator
from dfad_bench.testing.metrics import check_metric
from dfad_bench.testing.models import LEAVES, check_device, check_model
from dfad_bench.testing.perturbations import check_perturbation
from dfad_bench.testing.sources import check_source

__all__ = [
    "LEAVES",
    "ContractError",
    "check_device",
    "check_face_detector",
    "check_gaze_estimator",
    "check_metric",
    "check_model",
    "check_perturbation",
    "check_source",
]
