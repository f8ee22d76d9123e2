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

Then what is made of a window:

- ``sequential``: evidence that may be looked at after every row: e-detectors, e-values, confidence sequences
- ``signals``: a signal is a number with its count, interval and verdict; those that labels give
- ``accuracy``: evidence that the accuracy fell, from what the confidence says of each row
- ``calibration``: ECE in its kinds, and evidence that confidence has come apart from truth
- ``segments``: where an accuracy fell, corrected for how many segments were looked at
- ``latency``: quantiles by stage, and which stage a delay comes from
- ``drift``: distances from the reference that need no labels: KS, total variation, MMD
- ``priors``: how often each label is asked for, told from decisions alone
- ``unlabelled``: every signal that needs no label, over a window
- ``rows``: records of a window as the arrays that signals are made of
- ``references``: the number, the claim and the rows to test it with that a reference gives for every signal
- ``assessment``: what all signals of a stream say at one moment
- ``watch_state``: what is remembered of the watching of each stream
- ``stream_watch``: gathers evidence as the journey goes, pins what to compare with, assesses
- ``failure_tree``: from signals to a diagnosis, as ``failure_modes.toml`` says
- ``alerts``: a diagnosis that has begun or ended: hysteresis, cooldown, one open a diagnosis
- ``drawn_streams``: streams drawn from a model that is known, for measurements and tests
- ``bench_tree``: how often the whole tree comes to a diagnosis on quiet streams, and how soon on changed ones
- ``bench_signals``: how often quiet streams raise a false alarm, and how soon a change is found
- ``replay_text``: real messages and what a version says of them, for measurements
- ``replay_streams``: streams of them, quiet or changed
- ``replay_changes``: the changes that are measured, and what the tree should say
- ``replay_export``: the same streams as files, for other programs
- ``bench_replay``: the whole tree over replayed real text
- ``rival_tools``: river, Evidently and NannyML over one stream
- ``bench_rivals``: their false alarms and delays on the same streams

Then what is done about it:

- ``remedies``: what is asked of an action, and what came of it
- ``incidents``: a diagnosis, its remedies, and the check that they helped
- ``novelty``: how many utterances of something new have come since the ood precision or recall fell
- ``incident_store``: incidents and the outbox in the state file: at least once, with a dead letter at the end
- ``deliverer``: runs actions, each in a slot of its own, so that none holds up another
- ``hooks``: ways out of the process: a command, a signed webhook, a SageMaker pipeline
- ``recalibration``: another temperature, fitted on half of the recent labels and judged on the other half
- ``refit``: the calibrator re-fitted and proposed; what was proposed, swapped in
- ``steering``: the remedies for latency: tuning, reload, the previous version
- ``work_files``: what actions leave in the work folder, whole or not at all
- ``event_texts``: request ids and texts of predictions, looked up in the log
- ``label_queue``: which predictions people are to label, and why each
- ``relabel``: queues for people who label: of a segment that went wrong, and a stratified sample
- ``retrain``: labels of production as training text, and the hook that trains on them
- ``embedded_events``: the latest events with an embedding, and the labels that hold, out of the log
- ``clusters``: groups of utterances that look alike: whitening, average linkage, and how stable each group is
- ``key_terms``: what a group says that others do not
- ``own_process``: long computing where it holds nobody up
- ``discovery_page``: the review queue as a page for people
- ``discovery``: clusters of what no known intent took, left for review
- ``service_replay``: texts sent through the real service, for measurements
- ``withheld_intents``: messages of intents that a model does not know, out of public text
- ``bench_discovery``: how well clusters match intents that the model does not know

What people are told of a stretch of time:

- ``report``: an HTML report: read, measure, draw, write
- ``report_arguments``: what its command is told
- ``report_rows``: its rows: predictions of the range with the labels known by now
- ``report_state``: incidents and pinned references, from the state file of a sidecar that goes on running
- ``report_signals``: every signal and segment over the whole range
- ``report_slices``: measures over time
- ``report_figures``: which pictures are made of the rows
- ``report_plots``: how they are drawn
- ``report_words``: names, numbers with units, times
- ``report_markup``: HTML that is escaped by construction
- ``report_page``: the page

And the process around both:

- ``settings``: every setting, read from the environment
- ``json_logs``: log lines as JSON
- ``clock``: Unix time that never goes back while the process runs
- ``sources``: what a version brings with it, read from the model repository
- ``snapshot``: what is known at one moment, replaced whole
- ``course``: the course of incidents: what walks change about them, and what is asked next
- ``monitor``: what one turn does: take events in, measure, decide, deliver
- ``loop``: the thread that turns it
- ``exposition``: a snapshot as metric families
- ``telemetry``: every metric
- ``http_app``: what is answered over HTTP
- ``app``: the composition root
- ``grafana/``: dashboards over what both processes expose
"""
