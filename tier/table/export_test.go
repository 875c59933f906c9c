package table

// Expire deletes what has expired, as the sweep does by and by.
func (s *Store) Expire() error {
	for _, t := range s.every() {
		if err := s.expire(t); err != nil {
			return err
		}
	}
	return nil
}
