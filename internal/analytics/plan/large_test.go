package plan

import (
	"fmt"
	"strings"
	"testing"
)

// Texts that are short and mean much are refused before they are.
func TestExpressionsThatGrow(t *testing.T) {
	nest := func(n int, before, inner, after string) string {
		return strings.Repeat(before, n) + inner + strings.Repeat(after, n)
	}
	const double = `CREATE FUNCTION F (X INTEGER) RETURNS INTEGER RETURN X + X;`
	for name, program := range map[string]string{
		"arguments of functions": double + `CREATE STREAM O (A INTEGER); CREATE PUMP P AS INSERT INTO O SELECT STREAM ` + nest(60, "F(", "I", ")") + ` FROM S;`,
		"BETWEEN":                `CREATE STREAM O (A BOOLEAN); CREATE PUMP P AS INSERT INTO O SELECT STREAM ` + nest(60, "(", "YES", " BETWEEN SYMMETRIC FALSE AND TRUE)") + ` FROM S;`,
		"IN":                     `CREATE STREAM O (A BOOLEAN); CREATE PUMP P AS INSERT INTO O SELECT STREAM ` + nest(60, "(", "YES", " IN (FALSE, TRUE, FALSE))") + ` FROM S;`,
		"CASE":                   `CREATE STREAM O (A INTEGER); CREATE PUMP P AS INSERT INTO O SELECT STREAM ` + nest(60, "CASE ", "I", " WHEN 1 THEN 2 WHEN 2 THEN 3 END") + ` FROM S;`,
		"NULLIF":                 `CREATE STREAM O (A INTEGER); CREATE PUMP P AS INSERT INTO O SELECT STREAM ` + nest(60, "NULLIF(", "I", ", 1)") + ` FROM S;`,
		"functions of functions": func() string {
			text := "CREATE FUNCTION F0 (X INTEGER) RETURNS INTEGER RETURN X + X;"
			for i := range 40 {
				a, b := string(rune('A'+i/10))+string(rune('0'+i%10)), string(rune('A'+(i-1)/10))+string(rune('0'+(i-1+10)%10))
				if i == 0 {
					b = "F0"
				}
				text += "CREATE FUNCTION " + a + " (X INTEGER) RETURNS INTEGER RETURN " + b + "(X) + " + b + "(X);"
			}
			return text + "CREATE STREAM O (A INTEGER); CREATE PUMP P AS INSERT INTO O SELECT STREAM D9(I) FROM S;"
		}(),
		"in groups": double + `CREATE STREAM O (A INTEGER); CREATE PUMP P AS INSERT INTO O SELECT STREAM SUM(` + nest(60, "F(", "I", ")") + `) FROM S GROUP BY FLOOR(S.ROWTIME TO MINUTE);`,
	} {
		_, err := Compile(program, testCatalog(t), Options{})
		if err == nil || !strings.Contains(err.Error(), "the expression is too large") {
			t.Errorf("%s: %v", name, err)
		}
	}
	views := `CREATE VIEW V0 AS SELECT STREAM I FROM S;`
	with := `WITH V0 AS (SELECT STREAM I FROM S)`
	for i := range 40 {
		views += fmt.Sprintf("CREATE VIEW V%d AS SELECT STREAM I FROM V%d UNION ALL SELECT STREAM I FROM V%[2]d;", i+1, i)
		with += fmt.Sprintf(", V%d AS (SELECT STREAM I FROM V%d WHERE EXISTS (SELECT 1 FROM V%[2]d) UNION ALL SELECT STREAM I FROM V%[2]d)", i+1, i)
	}
	for name, program := range map[string]string{
		"views": views + `CREATE STREAM O (A INTEGER); CREATE PUMP P AS INSERT INTO O SELECT STREAM I FROM V40;`,
		"WITH":  `CREATE STREAM O (A INTEGER); CREATE PUMP P AS INSERT INTO O ` + with + ` SELECT STREAM I FROM V40 WHERE I IN (SELECT I FROM V40);`,
	} {
		_, err := Compile(program, testCatalog(t), Options{Extensions: true})
		if err == nil || !strings.Contains(err.Error(), "the program is too large") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is merely long is not.
	long := `CREATE STREAM O (A INTEGER); CREATE PUMP P AS INSERT INTO O SELECT STREAM I` + strings.Repeat(" + I", 5000) + ` FROM S WHERE K IN ('a'` + strings.Repeat(", 'a'", 5000) + `);`
	if _, err := Compile(long, testCatalog(t), Options{}); err != nil {
		t.Error(err)
	}
}
