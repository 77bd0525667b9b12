"""Campaign Streams: live campaign metrics from Kafka, exact under any crash."""

__version__ = "0.1.0"
