// Says which Go the programs of tests/helm/program need; they are built from their own modules.
module pgimbal.test/helm

go 1.26.0
