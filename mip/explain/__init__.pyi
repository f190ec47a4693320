from .activations import plot_activations as plot_activations
from .activations import plot_histograms as plot_histograms
from .recording import histograms as histograms
from .recording import layers as layers
from .recording import record_activations as record_activations
from .recording import to_frame as to_frame
