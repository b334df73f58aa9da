"""How sure a number is: resampling of clusters, intervals, and tests of one model against another."""
