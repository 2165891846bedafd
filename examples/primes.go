// Go: built once per version of the script, then run from the cache.
package inner

import "fmt"

func main(limit int) (map[string]any, error) {
	if limit <= 0 {
		limit = 50
	}
	primes := []int{}
	for n := 2; n <= limit; n++ {
		if isPrime(n) {
			primes = append(primes, n)
		}
	}
	fmt.Printf("%d primes up to %d\n", len(primes), limit)
	return map[string]any{"count": len(primes), "largest": primes[len(primes)-1]}, nil
}

func isPrime(n int) bool {
	for d := 2; d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}
