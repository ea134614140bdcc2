"""``make gpu``: what only a GPU can tell, in one run of eight minutes at most.

Each phase is a process of its own with its own time limit: one that fails, hangs or crashes costs
only itself. What was found is on disk after every phase, and a dry run does all of it in miniature
without a GPU (Triton's interpreter, models on the CPU).

Members:
    phases: the table of phases, in order of worth, with their limits and what they import.
    running: starts phases, stops them, keeps what they found.
    one: a phase's own process.
    bench: what a phase works on and writes to; clocks of the device.
    findings: what a phase measured or checked.
    machine: what the machine is and has.
    tables: what was found, for the terminal and for ``docs/gpu.md``.
    shapes, families: sizes of models, and random models of such sizes.
    correctness, kernel, live, evaluation, inside_vllm, adjoint, memory: the phases.
    decoding: of ``live``, whether a CUDA graph decodes faster.

To add a phase, write a module with ``run(bench)`` and list it in ``phases``.
"""
