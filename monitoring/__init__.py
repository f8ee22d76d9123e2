"""
The sidecar: reads the event log, joins delayed labels, measures, diagnoses, acts. It never calls the service.
"""
