"""
The sidecar: reads the event log, joins delayed labels, measures, diagnoses, acts. It never calls the service.

In reading order, first the way of an event:

- ``errors``: what can go wrong
- ``observations``: what the journey carries of a prediction, and how much is remembered
- ``event_reader``: follows the event log from a cursor
- ``decoding``: rows of the log -> columns; what cannot be read is counted
- ``label_join``: puts predictions and their labels together, in whichever order they come
- ``label_choice``: which of several labels of one request holds
- ``join_tables``: what the join remembers, in the state file
- ``counters``: what has been counted, and sums to a fleet
- ``windows``: the latest predictions, labels and embeddings of each stream
- ``reference_window``: the frozen side of a comparison, from the version or pinned from production
- ``state_file``: the cursor and everything counted with it, changed in one transaction
- ``journey``: one step of all of it: read, join, count, commit, show to the windows
- ``bench_events``: how many events a second that is
"""
