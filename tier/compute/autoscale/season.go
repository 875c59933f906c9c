package autoscale

import (
	"math"
	"time"
)

const (
	slotFor  = 5 * time.Minute
	slots    = int(7 * 24 * time.Hour / slotFor)
	perDay   = int(24 * time.Hour / slotFor)
	wholeDay = 23 * 60 * 60 // seconds
	trial    = 7            // days of which the forecast has to be better
	dearer   = 1.10         // how many more task-seconds it may take
	fadeBy   = 0.5          // the weight of the newest week
	quantile = 0.95         // of the needs in a slot, that is foreseen
)

// Season forecasts by the time of the week, in UTC. It is made from the first day on and judged beside
// the law every second, as if its tasks ran: what would have been missing, and what it would have
// cost. It acts only after seven whole days over which it was better. It is plain data, to be kept as JSON.
type Season struct {
	Need   []float32 `json:"need,omitempty"` // tasks, by slot of the week; 0: not known
	Days   []Day     `json:"days,omitempty"` // the last full days, oldest first
	Today  Day       `json:"today"`
	Proven bool      `json:"proven,omitempty"` // it acts

	slot int
	seen []float32 // needs of the slot now, a sample each
}

// Day is how law and forecast did on a day: task-seconds that were missing and that were there.
type Day struct {
	Date             string  `json:"date"`
	Seconds          float64 // that were seen of it
	Missing, Cost    float64 // of the law
	Foreseen, Dearer float64 // the same of the larger of law and forecast
}

// step takes the need of this moment and gives the tasks that are foreseen for when one started now
// would be there; 0 while the forecast does not act.
func (s *Season) step(at time.Time, dt, need float64, ready int, boot time.Duration) int {
	if s.Need == nil {
		s.Need = make([]float32, slots)
	}
	if len(s.Need) != slots {
		s.Need, s.Days, s.Proven = make([]float32, slots), nil, false
	}
	now := slotOf(at)
	ahead := s.foreseen(at.Add(boot + 10*time.Second))
	s.judge(at, dt, need, ready, s.foreseen(at))
	if now != s.slot || len(s.seen) == 0 {
		s.close()
		s.slot = now
	}
	s.seen = append(s.seen, float32(need))
	if !s.Proven {
		return 0
	}
	return ahead
}

func slotOf(at time.Time) int {
	at = at.UTC()
	return (int(at.Weekday())*24*60 + at.Hour()*60 + at.Minute()) / int(slotFor/time.Minute) % slots
}

// close notes what the slot that is over needed.
func (s *Season) close() {
	if len(s.seen) == 0 {
		return
	}
	v := kth(s.seen, int(quantile*float64(len(s.seen)-1)))
	if old := s.Need[s.slot]; old > 0 {
		v = old + (v-old)*fadeBy
	}
	s.Need[s.slot] = max(v, 0.001)
	s.seen = s.seen[:0]
}

// foreseen is what was needed at this time: a week ago, else a day ago.
func (s *Season) foreseen(at time.Time) int {
	i := slotOf(at)
	v := s.Need[i]
	for back := 1; v == 0 && back < 7; back++ {
		v = s.Need[(i-back*perDay+7*slots)%slots]
	}
	return int(math.Ceil(float64(v) - slack))
}

// judge counts what was missing of what was needed, for the law as it ran and for the larger of both.
func (s *Season) judge(at time.Time, dt, need float64, ready, foreseen int) {
	date := at.UTC().Format(time.DateOnly)
	if s.Today.Date != date {
		if s.Today.Seconds > wholeDay { // one on which the house was off shows nothing
			s.Days = append(s.Days, s.Today)
			s.Days = s.Days[max(0, len(s.Days)-trial):]
		}
		s.Today = Day{Date: date}
		s.verdict()
	}
	more := max(ready, foreseen)
	s.Today.Seconds += dt
	s.Today.Missing += max(0, need-float64(ready)) * dt
	s.Today.Cost += float64(ready) * dt
	s.Today.Foreseen += max(0, need-float64(more)) * dt
	s.Today.Dearer += float64(more) * dt
}

// verdict lets the forecast act, or stops it.
func (s *Season) verdict() {
	var sum Day
	for _, d := range s.Days {
		sum.Missing += d.Missing
		sum.Cost += d.Cost
		sum.Foreseen += d.Foreseen
		sum.Dearer += d.Dearer
	}
	if s.Proven { // what it prevents is not seen any more: only what it costs is
		s.Proven = sum.Dearer <= sum.Cost*dearer
		return
	}
	s.Proven = len(s.Days) == trial && sum.Foreseen < sum.Missing*0.9 && sum.Dearer <= sum.Cost*dearer
}

// kth gives the k-th smallest and disorders v.
func kth(v []float32, k int) float32 {
	lo, hi := 0, len(v)-1
	for lo < hi {
		p, i, j := v[(lo+hi)/2], lo, hi
		for i <= j {
			for v[i] < p {
				i++
			}
			for v[j] > p {
				j--
			}
			if i <= j {
				v[i], v[j] = v[j], v[i]
				i++
				j--
			}
		}
		switch {
		case k <= j:
			hi = j
		case k >= i:
			lo = i
		default:
			return v[k]
		}
	}
	return v[k]
}
