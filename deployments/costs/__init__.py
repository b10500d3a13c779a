"""The cost report: one source of figures for the cost page, its JSON and `stepdown costs`.

`report` puts the figures together, from the ledger's sums (`sums`, `gpu`) and single rows (`decisions`, `estimates`), and
`routes` serves them and the page. The room may import the ledger, the router and an artefact's manifest; it must not know who
answers requests: no endpoint, tiers, keys or metrics.
"""
