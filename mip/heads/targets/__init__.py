"""What heads predict: how the cells of a column become a target, and predictions its values.

A kind takes the verbs that it shares from one of these: `encode = number.encode`.
"""

from mip.heads.targets import classes as classes
from mip.heads.targets import number as number
