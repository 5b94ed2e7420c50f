package health

import "time"

// machine is the state machine of one check. It has no clock: the outcome of
// a probe goes in, the verdict and the delay until the next probe come out.
//
// It starts up with its retries used up, so the first failure is enough to
// call a server down; a server that must prove itself first (alpha) is held
// down by its real server until known is true.
type machine struct {
	// configuration
	http             bool // HTTP_GET, SSL_GET: one URL a probe
	urls             int  // of an http machine, at least 1
	retry            int
	delayLoop        time.Duration
	delayBeforeRetry time.Duration
	fastRecovery     bool

	// state
	up        bool
	known     bool // a verdict is based on at least one probe
	used      int  // retries used
	url       int  // index of the URL that the next probe asks for
	failedURL int  // URL that took the server down, -1: none
}

// minDelay bounds how often one check may probe, whatever the configuration
// says (delay_loop has no lower limit, and fast_recovery has no delay at all).
const minDelay = time.Millisecond

func newMachine(http bool, urls, retry int, delayLoop, delayBeforeRetry time.Duration, fastRecovery bool) machine {
	return machine{
		http: http, urls: max(urls, 1), retry: max(retry, 0),
		delayLoop: delayLoop, delayBeforeRetry: delayBeforeRetry, fastRecovery: fastRecovery,
		up: true, used: max(retry, 0), failedURL: -1,
	}
}

// left is the number of further failures that the check survives.
func (m *machine) left() int {
	if !m.up {
		return 0
	}
	return max(m.retry-m.used, 0)
}

// inherit takes over the state of the same check before a reload. A check
// that used at least as many retries as it has now goes down at its next
// failure.
func (m *machine) inherit(old machine) {
	m.up, m.known, m.used = old.up, old.known, min(old.used, m.retry)
	if !m.known {
		m.used = m.retry
	}
	if m.http && old.url < m.urls {
		m.url = old.url
	}
	if m.http && !m.up {
		m.url, m.failedURL = 0, 0
		if old.failedURL >= 0 && old.failedURL < m.urls {
			m.url, m.failedURL = old.failedURL, old.failedURL
		}
	}
}

// step takes the outcome of a probe. It returns whether the verdict changed or
// is the first one, and how long to wait before the next probe.
func (m *machine) step(ok bool) (news bool, next time.Duration) {
	if m.http {
		news, next = m.stepHTTP(ok)
	} else {
		news, next = m.stepOne(ok)
	}
	return news, max(next, minDelay)
}

func (m *machine) stepOne(ok bool) (bool, time.Duration) {
	switch {
	case ok:
		news := !m.up || !m.known
		m.up, m.known, m.used = true, true, 0
		return news, m.delayLoop
	case m.up && m.used >= m.retry:
		m.up, m.known, m.used = false, true, 0
		return true, m.delayLoop
	case m.up:
		m.known = true
		m.used++
		return false, m.delayBeforeRetry
	}
	return false, m.delayLoop // known to be down: no retries
}

func (m *machine) stepHTTP(ok bool) (news bool, next time.Duration) {
	if ok {
		return m.passHTTP()
	}
	switch {
	case m.up && m.used >= m.retry:
		news = true
		m.up, m.failedURL = false, m.url
	case m.up:
		m.used++
	}
	m.known = true
	if m.failedURL >= 0 {
		return news, max(m.delayBeforeRetry, m.delayLoop)
	}
	// Up with retries left, or down with another URL failing on the way back:
	// that URL is asked again. fast_recovery must not turn this into a spin.
	return news, m.delayBeforeRetry
}

func (m *machine) passHTTP() (news bool, next time.Duration) {
	m.used = 0
	switch {
	case m.failedURL >= 0:
		// The URL that failed answers again: all of them must now pass.
		m.failedURL, m.url = -1, 0
		if m.urls == 1 {
			news = !m.up || !m.known
			m.up, m.known = true, true
		}
	case m.url == m.urls-1:
		news = !m.up || !m.known
		m.up, m.known, m.url = true, true, 0
	default:
		m.url++
	}
	if !m.known {
		m.used = m.retry
	}
	if m.fastRecovery && (!m.known || !m.up) {
		return news, 0
	}
	return news, m.delayLoop
}
