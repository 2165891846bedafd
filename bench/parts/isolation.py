"""placeholder"""

from bench.context import Part

PART = Part(name="isolation", title="Cost of isolation", budget_s=60, run=lambda context: [])
