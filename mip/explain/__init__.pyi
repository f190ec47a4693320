from .activations import plot_activations as plot_activations
from .activations import plot_histograms as plot_histograms
from .probes import histograms as histograms
from .probes import layers as layers
from .probes import probe as probe
from .probes import to_frame as to_frame
