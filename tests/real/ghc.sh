# ghc compiles a program with threads and exceptions, which then runs on two capabilities.
cd "$TMP"
cat >Main.hs <<'H'
module Main where
import Control.Concurrent
import Control.Exception
import Control.Monad
import qualified Data.Map.Strict as M
main :: IO ()
main = do
  done <- newEmptyMVar
  total <- newMVar (0 :: Integer)
  forM_ [1 .. 50] $ \i -> forkIO $ do
    let s = sum [fromIntegral (x * i `mod` 7) | x <- [1 .. 2000 :: Int]]
    modifyMVar_ total (return $!) >> modifyMVar_ total (return . (+ s))
    putMVar done ()
  replicateM_ 50 (takeMVar done)
  readMVar total >>= print
  r <- try (evaluate (1 `div` (0 :: Int)))
  print (r :: Either ArithException Int)
  print (M.foldl' (+) 0 (M.fromListWith (+) [(x `mod` 101, x) | x <- [1 .. 50000 :: Int]]))
  t <- forkIO (forever (threadDelay 1000))
  killThread t
  putStrLn "killed"
H
ghc -v0 -O1 -threaded -rtsopts Main.hs -o m && ./m +RTS -N2
