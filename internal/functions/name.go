package functions

import "strings"

// Name is a function's name as callers write it, taken apart.
type Name struct {
	Partition string // "aws"
	Region    string // empty if the name does not say
	Account   string // empty if the name does not say
	Function  string
	Qualifier string // version or alias; empty for none
}

// maxName bounds what a name may look like before it is looked at.
const maxName = 256

// ParseName reads a name in any of the forms that Lambda takes: name,
// account:function:name, arn:aws:lambda:region:account:function:name, each with
// or without :qualifier behind it.
func ParseName(text string) (Name, bool) {
	var n Name
	if len(text) > maxName {
		return n, false
	}
	parts := strings.Split(text, ":")
	if parts[0] == "arn" {
		if len(parts) < 7 || len(parts) > 8 || parts[2] != "lambda" || parts[5] != "function" || !isAccount(parts[4]) {
			return n, false
		}
		n.Partition, n.Region, n.Account = parts[1], parts[3], parts[4]
		parts = parts[6:]
	} else {
		if isAccount(parts[0]) && len(parts) > 1 {
			n.Account, parts = parts[0], parts[1:]
		}
		if parts[0] == "function" && len(parts) > 1 {
			parts = parts[1:]
		} else if n.Account != "" {
			return n, false
		}
	}
	n.Function = parts[0]
	switch len(parts) {
	case 1:
	case 2:
		if n.Qualifier = parts[1]; n.Qualifier == "" {
			return n, false
		}
	default:
		return n, false
	}
	return n, localName(n.Function)
}

// ARN is the name in full. account and region stand in where the name is silent.
func (n Name) ARN(account, region string) string {
	partition := n.Partition
	if partition == "" {
		partition = "aws"
	}
	if n.Account != "" {
		account = n.Account
	}
	if n.Region != "" {
		region = n.Region
	}
	arn := "arn:" + partition + ":lambda:" + region + ":" + account + ":function:" + n.Function
	if n.Qualifier != "" {
		arn += ":" + n.Qualifier
	}
	return arn
}

func isAccount(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}

// localName tells what a function, and so its directory, may be called. There
// are no dots in it, and so no way out of the directory of functions.
func localName(s string) bool {
	return s != "" && len(s) <= 140 &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

// matches compares text with a pattern in which * stands for any text and ? for
// any one character.
func matches(pattern, text string) bool {
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(text) {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, mark = i, j
			i++
		case i < len(pattern) && (pattern[i] == '?' || pattern[i] == text[j]):
			i, j = i+1, j+1
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[i:], "*") == ""
}
