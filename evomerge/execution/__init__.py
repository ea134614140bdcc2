"""Where candidates are made and scored: worker processes behind one small protocol.

Members:
    protocol: ``Executor``, jobs and outcomes.
    climb: steps along slopes, from where a candidate was scored.
    climbing: takes them on a worker.
    batch: a batch of jobs on any executor.
    costs: names of what a candidate costs.
    meter: measures it.
    worker: merges and scores one recipe at a time.
    together: candidates that may be ensembles.
    inline: in the driver's process.
    interrupts: Ctrl-C and SIGTERM.
    ray: on Ray actors, on one machine or a cluster.
    starting: Ray itself.
    remote: what runs in such an actor.
    patience: how long a job may take.
    watching: which worker does what since when.
    happenings: what is told of workers.
    deaths: why a worker died.
    orphans: what a killed driver leaves behind.
    placement: machines, and how many workers they have room for.
    cluster: the cluster's machines, and whether their software is the driver's.
    contents: whether a machine's model files hold what the driver's do.
"""
