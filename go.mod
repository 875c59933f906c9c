module tenfold

go 1.26
