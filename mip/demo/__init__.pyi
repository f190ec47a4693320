from .comparison import compare as compare
from .comparison import floors as floors
from .comparison import table as table
from .files import draw as draw
