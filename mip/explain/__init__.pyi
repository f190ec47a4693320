from .activations import plot_drift as plot_drift
from .activations import plot_histograms as plot_histograms
from .probes import histograms as histograms
from .probes import layers as layers
from .probes import probe as probe
from .probes import table as table
