module github.com/postrider/postrider/internal/peerbench

go 1.26.0

replace github.com/postrider/postrider => ../..
