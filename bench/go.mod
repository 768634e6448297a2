module github.com/millrace/millrace/bench

go 1.26.0

require github.com/millrace/millrace/test v0.0.0

replace github.com/millrace/millrace/test => ../test
