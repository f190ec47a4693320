from . import train as train
from .app import main as main
