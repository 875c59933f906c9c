package main

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// signedInFor is how long a sign-in lasts.
const signedInFor = 60 * 24 * time.Hour

// sessions are sign-ins, in a table, so that one can be ended before its token does. Without a table they last as
// long as their tokens.
type sessions struct {
	db    *dynamodb.Client
	table string
}

// begin makes a session of a user.
func (s *sessions) begin(ctx context.Context, user int64) (id string, err error) {
	id = rand.Text()
	if s.db == nil {
		return id, nil
	}
	_, err = s.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &s.table, ConditionExpression: aws.String("attribute_not_exists(id)"), Item: map[string]types.AttributeValue{
		"id": &types.AttributeValueMemberS{Value: id}, "user": number(user), "expires": number(time.Now().Add(signedInFor).Unix()),
	}})
	return id, err
}

// holds says whether a session has not ended.
func (s *sessions) holds(ctx context.Context, id string, user int64) (bool, error) {
	if s.db == nil {
		return true, nil
	}
	if id == "" { // a token of before there were sessions
		return false, nil
	}
	out, err := s.db.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.table, Key: map[string]types.AttributeValue{"id": &types.AttributeValueMemberS{Value: id}}, ConsistentRead: aws.Bool(true)})
	if err != nil {
		return false, err
	}
	of, _ := out.Item["user"].(*types.AttributeValueMemberN)
	return of != nil && of.Value == strconv.FormatInt(user, 10), nil
}

// end has a session hold no longer.
func (s *sessions) end(ctx context.Context, id string) error {
	if s.db == nil {
		return errors.New("there is no table of sessions")
	}
	_, err := s.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &s.table, Key: map[string]types.AttributeValue{"id": &types.AttributeValueMemberS{Value: id}}})
	return err
}

func number(n int64) *types.AttributeValueMemberN {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}
