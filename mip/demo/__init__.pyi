from .comparison import compare as compare
from .comparison import oracle_scores as oracle_scores
from .comparison import results_table as results_table
from .files import draw as draw
