package request

// setTableMember sets what describes a table.
func (in *Input) setTableMember(name string, raw []byte) bool {
	switch name {
	case "AttributeDefinitions":
		in.AttributeDefinitions = each(raw, attributeDefinition)
	case "KeySchema":
		in.KeySchema = each(raw, keySchemaElement)
	case "LocalSecondaryIndexes":
		in.LocalSecondaryIndexes = each(raw, index)
	case "GlobalSecondaryIndexes":
		in.GlobalSecondaryIndexes = each(raw, index)
	case "GlobalSecondaryIndexUpdates":
		in.GlobalSecondaryIndexUpdates = each(raw, indexUpdate)
	case "BillingMode":
		in.BillingMode = unquote(raw)
	case "ProvisionedThroughput":
		in.ProvisionedThroughput = throughput(raw)
	case "OnDemandThroughput":
		in.OnDemandThroughput = onDemandThroughput(raw)
	case "WarmThroughput":
		in.WarmThroughput = warmThroughput(raw)
	case "StreamSpecification":
		in.StreamSpecification = &StreamSpecification{}
		object(raw, func(name string, raw []byte) {
			switch name {
			case "StreamEnabled":
				in.StreamSpecification.StreamEnabled = boolean(raw)
			case "StreamViewType":
				in.StreamSpecification.StreamViewType = unquote(raw)
			}
		})
	case "SSESpecification":
		in.SSESpecification = sseSpecification(raw)
	case "TableClass":
		in.TableClass = unquote(raw)
	case "DeletionProtectionEnabled":
		in.DeletionProtectionEnabled = new(boolean(raw))
	case "Tags":
		in.Tags = each(raw, func(t *Tag, name string, raw []byte) {
			switch name {
			case "Key":
				t.Key = unquote(raw)
			case "Value":
				t.Value = unquote(raw)
			}
		})
	case "ResourcePolicy":
		in.ResourcePolicy = unquote(raw)
	case "TableCreationParameters":
		object(raw, func(name string, raw []byte) {
			if name == "TableName" {
				in.setTable(unquote(raw))
				return
			}
			in.setTableMember(name, raw)
		})
	default:
		return false
	}
	return true
}

func attributeDefinition(d *AttributeDefinition, name string, raw []byte) {
	switch name {
	case "AttributeName":
		d.AttributeName = unquote(raw)
	case "AttributeType":
		d.AttributeType = unquote(raw)
	}
}

func keySchemaElement(k *KeySchemaElement, name string, raw []byte) {
	switch name {
	case "AttributeName":
		k.AttributeName = unquote(raw)
	case "KeyType":
		k.KeyType = unquote(raw)
	}
}

func index(x *Index, name string, raw []byte) {
	switch name {
	case "IndexName":
		x.IndexName = unquote(raw)
	case "KeySchema":
		x.KeySchema = each(raw, keySchemaElement)
	case "Projection":
		object(raw, func(name string, raw []byte) {
			switch name {
			case "ProjectionType":
				x.Projection.ProjectionType = unquote(raw)
			case "NonKeyAttributes":
				x.Projection.NonKeyAttributes = texts(raw)
			}
		})
	case "ProvisionedThroughput":
		x.ProvisionedThroughput = throughput(raw)
	case "OnDemandThroughput":
		x.OnDemandThroughput = onDemandThroughput(raw)
	case "WarmThroughput":
		x.WarmThroughput = warmThroughput(raw)
	}
}

func indexUpdate(u *IndexUpdate, name string, raw []byte) {
	whole := func() *Index {
		x := &Index{}
		object(raw, func(name string, raw []byte) { index(x, name, raw) })
		return x
	}
	switch name {
	case "Create":
		u.Create = whole()
	case "Update":
		u.Update = whole()
	case "Delete":
		u.Delete = whole().IndexName
	}
}

func throughput(raw []byte) *Throughput {
	t := &Throughput{}
	object(raw, func(name string, raw []byte) {
		switch name {
		case "ReadCapacityUnits":
			t.ReadCapacityUnits = integer(raw)
		case "WriteCapacityUnits":
			t.WriteCapacityUnits = integer(raw)
		}
	})
	return t
}

func onDemandThroughput(raw []byte) *OnDemandThroughput {
	t := &OnDemandThroughput{}
	object(raw, func(name string, raw []byte) {
		switch name {
		case "MaxReadRequestUnits":
			t.MaxReadRequestUnits = new(integer(raw))
		case "MaxWriteRequestUnits":
			t.MaxWriteRequestUnits = new(integer(raw))
		}
	})
	return t
}

func warmThroughput(raw []byte) *WarmThroughput {
	t := &WarmThroughput{}
	object(raw, func(name string, raw []byte) {
		switch name {
		case "ReadUnitsPerSecond":
			t.ReadUnitsPerSecond = new(integer(raw))
		case "WriteUnitsPerSecond":
			t.WriteUnitsPerSecond = new(integer(raw))
		}
	})
	return t
}

func sseSpecification(raw []byte) *SSESpecification {
	s := &SSESpecification{}
	object(raw, func(name string, raw []byte) {
		switch name {
		case "Enabled":
			s.Enabled = new(boolean(raw))
		case "SSEType":
			s.SSEType = unquote(raw)
		case "KMSMasterKeyId":
			s.KMSMasterKeyId = unquote(raw)
		}
	})
	return s
}
