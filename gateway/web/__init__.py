"""People and programs in: DICOMweb and the viewer's pages over HTTP, in a process of its own."""
