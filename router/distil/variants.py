"""The names of weights, which the flywheel's room keeps."""

from router.flywheel.variants import MARK, SHORT, names_on, tier_of, variant

__all__ = ["MARK", "SHORT", "names_on", "tier_of", "variant"]
