"""Everything that a machine without a vault needs: brokers, stand-in upstreams, receivers, a workload, the demo."""
