"""The parity harness: the same scripted requests to Weir and to Apache Kafka, answers compared field by field."""
