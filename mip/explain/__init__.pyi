from .recording import Record as Record
from .recording import histograms as histograms
from .recording import layers as layers
from .recording import record_activations as record_activations
from .recording import statistics_of as statistics_of
from .recording import to_frame as to_frame
