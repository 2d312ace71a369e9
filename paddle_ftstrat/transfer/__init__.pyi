"""What `paddle_ftstrat.transfer` gives, and where it lives."""

from .load import load_pretrained as load_pretrained
from .merge import interpolate as interpolate
from .merge import soup as soup
from .merge import update_statistics as update_statistics
from .report import LoadError as LoadError
from .report import LoadReport as LoadReport
from .save import export_inference as export_inference
from .save import save_pretrained as save_pretrained
from .tune import find_head as find_head
from .tune import loaded_names as loaded_names
from .tune import reinitialize as reinitialize
from .tune import tune as tune
from .tune import tune_all as tune_all
from .tune import tune_differential as tune_differential
from .tune import tune_head as tune_head
