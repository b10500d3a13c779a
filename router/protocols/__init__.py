"""The protocols that clients speak. Each turns requests into OpenAI chats and answers back; none knows another."""
