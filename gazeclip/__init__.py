"""GazeCLIP (Zhang et al., arXiv:2603.29295), re-implemented from its abstract and captions: see README.md beside this file.

Not the gaze *estimator* of the same name (arXiv:2401.00260). A plain package: it uses dfad_bench as any third party would.
"""
