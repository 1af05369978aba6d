"""Where on a page the answer is: grids, regions, similarity maps, pictures and reports."""
